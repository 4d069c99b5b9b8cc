"""Cages for tests: as a server of this machine makes them, probed once for all tests."""

from __future__ import annotations

from functools import cache

from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.executor.sandbox.probe import Probe, look


@cache
def this_machine() -> Probe:
    """Give what this machine can do, without control groups."""
    return look()


def strict_cages() -> Cages:
    """Make cages that refuse what cannot be held."""
    return Cages("strict", this_machine(), Ceilings(2**31, 512))

"""Inputs of runs for tests that have no secrets."""

from __future__ import annotations

from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import Run
from dicode_mcp.runs.redaction import Redactor
from dicode_mcp.service.inputs import RunInputs


class NothingHidden:
    """Knows of no value to hide."""

    async def hiding(self, run: Run) -> Redactor | None:
        """Give what hides nothing."""
        return Redactor({})


def plain_inputs(store: Store) -> RunInputs:
    """Give inputs in which names alone hide."""
    return RunInputs(store, NothingHidden())

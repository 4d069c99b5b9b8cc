"""An executor and a task folder for each test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from runhouse import House

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.testing.cages import strict_cages
from dicode_mcp.testing.forking import QUICK, kept_ready
from dicode_runtimes.python import PythonRuntime


@pytest.fixture(params=["spawned", "forked"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[House]:
    """Each test in a process of its own and in a fork of a warm one: nobody can tell."""
    become_subreaper()
    runtime = PythonRuntime(warm=QUICK if request.param == "forked" else None)
    limits = LogLimits(max_bytes=1024 * 1024, max_lines=20_000)
    async with SpawnExecutor(SystemClock(), limits, cages=strict_cages()) as executor:
        await kept_ready(executor, runtime)
        yield House(executor, tmp_path, runtime)

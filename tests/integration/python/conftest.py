"""An executor and a task folder for each test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from runhouse import House

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.runs.log_room import LogLimits


@pytest.fixture
async def house(tmp_path: Path) -> AsyncGenerator[House]:
    become_subreaper()
    limits = LogLimits(max_bytes=1024 * 1024, max_lines=20_000)
    async with SpawnExecutor(SystemClock(), limits) as executor:
        yield House(executor, tmp_path)

"""Tasks that take all they can get: each ends by its limit, and everybody else is served on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from liveserver import MANUAL, Live, Serve

from dicode_mcp.testing.cages import this_machine
from dicode_mcp.testing.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not this_machine().separates, reason="no namespaces here"
    ),
]

BOMB = """\
import os, time

def main():
    until = time.monotonic() + 1
    while time.monotonic() < until:
        try:
            os.fork()
        except OSError:
            pass
    while True:
        os.fork()
"""
HOG = """\
def main():
    blocks = []
    for _ in range(512):
        blocks.append(bytearray(8 * 1024 * 1024))
    return "4 GiB"
"""
FLOOD = """\
import os

def main():
    block = (b"y" * 127 + b"\\n") * 8192
    for _ in range(1024):
        left = memoryview(block)
        while left:
            left = left[os.write(1, left):]
    return "1 GiB"
"""
ENDLESS = """\
import os

def main():
    block = bytes(1024 * 1024)
    for _ in range(1024):
        left = memoryview(block)
        while left:
            left = left[os.write(1, left):]
    return "1 GiB"
"""
PATIENCE_S = 30.0
"""How long one answer may take on a machine that has other things to do as well."""


@asynccontextmanager
async def watched(live: Live) -> AsyncGenerator[list[int]]:
    """Ask for the status all the while, and run a small task; gives how often each went well."""
    over = asyncio.Event()
    counted = [0, 0]

    async def ask() -> None:
        while not over.is_set():
            async with asyncio.timeout(PATIENCE_S):
                await live.call("get_status")
            counted[0] += 1

    async def work() -> None:
        while not over.is_set():
            run = await live.run("small")
            assert run["status"] == "success", run
            counted[1] += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(ask())
        group.create_task(work())
        try:
            yield counted
        finally:
            over.set()


async def under_load(live: Live, script: str, limits: str) -> dict[str, Any]:
    """Run a hostile task while others are served; gives the run as it ended."""
    live.write("small", "def main():\n    return 'served'\n")
    live.write("hostile", script, f"{MANUAL}timeout: 5m\nresources: {limits}\n")
    await live.sync()
    run = await live.call("run_task", id="hostile", wait_seconds=0)
    async with watched(live) as counted:
        ended: dict[str, Any] = run
        while ended["status"] in ("queued", "running"):
            ended = await live.call("get_run", run_id=run["run_id"], wait_seconds=50)
    assert min(counted) > 0, counted
    await until(lambda: marked(run["run_id"]) == [])
    assert (await live.run("small"))["status"] == "success"
    return ended


def marked(run_id: str) -> list[int]:
    """List the processes of a run that are still there."""
    mark = f"DICODE_RUN_ID={run_id}".encode()
    found: list[int] = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def said(run: dict[str, Any]) -> str:
    return f"{run['error']['message']}; {run['error'].get('hint')}"


async def test_a_fork_bomb_ends_at_its_limit_of_processes(serve: Serve) -> None:
    async with serve() as live:
        run = await under_load(live, BOMB, "{pids: 64}")
        assert run["status"] == "failure", run
        assert "limit of 64 processes and threads" in said(run)
        assert "resources.pids" in said(run)


async def test_a_task_that_wants_4_gib_ends_at_its_limit_of_memory(serve: Serve) -> None:
    async with serve() as live:
        run = await under_load(live, HOG, "{memory: 256MiB}")
        assert run["status"] == "failure", run
        assert run["reason"] == "memory_limit"
        assert "memory limit 256 MiB" in said(run)
        assert "resources.memory" in said(run)


@pytest.mark.parametrize("script", [FLOOD, ENDLESS], ids=["lines", "one_line"])
async def test_a_gib_of_log_is_read_and_the_log_names_its_limit(serve: Serve, script: str) -> None:
    async with serve() as live:
        run = await under_load(live, script, "{memory: 256MiB}")
        assert run["status"] == "success", run
        assert run["return_value"] == "1 GiB"
        logs = await live.call("get_logs", run_id=run["run_id"], level="warn", tail=5)
        told = [line["message"] for line in logs["lines"]]
        assert any("max_log_bytes" in line for line in told), told
        sizes = sum(file.stat().st_size for file in live.data.glob("logs.db*"))
        assert sizes < 64 * 2**20

"""kill -9 at random moments: what was acknowledged is there afterwards."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dicode_mcp.runs.model import RunStatus
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock

WRITER = """
import asyncio, os, pathlib, sys
from dicode_mcp.clock import SystemClock
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.store.sqlite import SqliteStore

clock = SystemClock()

def a_run(task):
    return Run(new_run_id(), task, RunStatus.QUEUED, Trigger.MCP, clock.now_ms())

async def work(store):
    while True:
        run = await store.add_run(a_run("first"), Payload({"a": "b" * 100}))
        os.write(1, f"added {run.id}\\n".encode())
        run = await store.start_run(run.id, now_ms=1, task_hash="", revision=None)
        follow = a_run("second")
        outcome = Outcome(RunStatus.SUCCESS, 2, return_value="1")
        await store.finish_run(run, outcome, [(follow, Payload())])
        os.write(1, f"ended {run.id} {follow.id}\\n".encode())

async def main():
    async with SqliteStore.open(pathlib.Path(sys.argv[1]), clock, ballast_bytes=0) as store:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(work(store))

asyncio.run(main())
"""


@pytest.mark.slow
async def test_no_acknowledged_run_is_lost_to_kill_9(tmp_path: Path) -> None:
    added: set[str] = set()
    ended: dict[str, str] = {}
    chance = random.Random(8)
    for _ in range(6):
        for words in await asyncio.to_thread(told_before_the_kill, tmp_path, chance):
            if words[0] == "added":
                added.add(words[1])
            else:
                ended[words[1]] = words[2]
        await check(tmp_path, added, ended)
    assert len(ended) > 100


def told_before_the_kill(data_dir: Path, chance: random.Random) -> list[list[str]]:
    """Start a writer, kill it at some moment, and give the words of its whole lines."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(data_dir)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        told = [child.stdout.readline()]
        # The moment of the kill is the point of the test; nothing is waited for.
        time.sleep(chance.uniform(0.01, 0.4))
        child.kill()
        told.extend(child.stdout.read().splitlines(keepends=True))
    return [line.decode().split() for line in told if line.endswith(b"\n")]


async def check(data_dir: Path, added: set[str], ended: dict[str, str]) -> None:
    async with SqliteStore.open(data_dir, FakeClock(), ballast_bytes=0) as store:
        for run_id in added:
            assert await store.get_run(run_id) is not None
        for run_id, follow_id in ended.items():
            run = await store.get_run(run_id)
            assert run is not None
            assert (run.status, run.return_value) == (RunStatus.SUCCESS, "1")
            assert await store.get_run(follow_id) is not None
        counts = await store.count_runs()
    disk = sqlite3.connect(data_dir / "state.db")
    assert disk.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # An end and its follow-up are one: neither is ever there without the other.
    (follows,) = disk.execute("SELECT count(*) FROM runs WHERE task_id = 'second'").fetchone()
    assert follows == counts.get(RunStatus.SUCCESS, 0)
    disk.close()

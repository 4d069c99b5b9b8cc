"""A run's log on its way to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus
from dicode_mcp.protocols import LogQuery, RawLine
from dicode_mcp.runner import RunLog
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.testing.store import MemoryStore


class SlowStore(MemoryStore):
    """Takes lines while ``open`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.waiting = asyncio.Event()

    async def append_logs(self, run_id: str, lines: Sequence[LogLine]) -> None:
        self.waiting.set()
        await self.open.wait()
        await super().append_logs(run_id, lines)


class UntrimmedStore(MemoryStore):
    """Cannot make room."""

    async def trim_logs(self, run_id: str, *, after: int, before: int) -> None:
        raise DicodeError(Code.STORAGE_UNAVAILABLE, "locked")


def raw(first: int, last: int) -> list[RawLine]:
    return [RawLine("stdout", f"line {n}", n) for n in range(first, last + 1)]


async def test_the_log_of_a_daemon_goes_on_for_ever_in_bounded_room() -> None:
    store = MemoryStore()
    run_log = RunLog("r", store, EventBus(), LogLimits(max_bytes=10**6, max_lines=2_000))
    async with asyncio.TaskGroup() as group:
        group.create_task(run_log.pump())
        for first in range(1, 20_001, 100):
            run_log.sink(raw(first, first + 99))
            await asyncio.sleep(0)
        run_log.close()
    lines = (await store.read_logs("r", LogQuery(limit=10_000))).lines
    assert len(lines) <= 2_200
    seqs = [line.seq for line in lines]
    assert seqs == sorted(set(seqs))
    assert [line.message for line in lines[:500]] == [f"line {n}" for n in range(1, 501)]
    mark, newest = lines[500], lines[501:]
    left_out = 20_000 - 500 - len(newest)
    assert f"{left_out:,} log lines were left out here" in mark.message
    assert newest[-1].message == "line 20000"
    assert newest[0].seq == mark.seq + 1


async def test_a_store_that_hangs_costs_lines_and_says_how_many() -> None:
    store = SlowStore()
    run_log = RunLog("r", store, EventBus(), LogLimits(max_bytes=10_000, max_lines=2_000))
    async with asyncio.TaskGroup() as group:
        group.create_task(run_log.pump())
        run_log.sink(raw(1, 10))
        await asyncio.wait_for(store.waiting.wait(), 10)
        run_log.sink(raw(11, 5_000))
        store.open.set()
        await asyncio.sleep(0)
        run_log.close()
    lines = (await store.read_logs("r", LogQuery(limit=10_000))).lines
    assert len(lines) < 250
    assert (lines[-1].seq, lines[-1].level) == (5_000, Level.WARN)
    left_out = 5_000 - (len(lines) - 1)
    assert f"{left_out:,} log lines were left out here" in lines[-1].message


async def test_a_store_that_cannot_make_room_still_gets_the_lines() -> None:
    store = UntrimmedStore()
    run_log = RunLog("r", store, EventBus(), LogLimits(max_bytes=10_000, max_lines=100))
    async with asyncio.TaskGroup() as group:
        group.create_task(run_log.pump())
        for first in range(1, 501, 100):
            run_log.sink(raw(first, first + 99))
            await asyncio.sleep(0)
        run_log.close()
    assert len((await store.read_logs("r", LogQuery(limit=10_000))).lines) == 500

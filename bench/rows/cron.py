"""How late runs start when thousands of cron tasks are due in the same minute.

The server's own part: real store, real queue, real clock, the concurrency cap, and children that
take no time. What processes add is in ``throughput``. Each task must run once: a lost or doubled
one makes the row unmeasurable.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from bench.figures import Result, figure
from bench.row import Plan, Row, Unmeasurable
from dicode_mcp.chains import Chains
from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.events import EventBus
from dicode_mcp.limits import limit_of
from dicode_mcp.protocols import RunQuery
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.model import Outcome, Run, RunStatus
from dicode_mcp.spec.model import Task, TaskSpec
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.triggers.cron import CronTrigger

_CAP = 8
_LONGEST_S = 300.0
_AHEAD_MS = 2_000
"""And a millisecond for each task: until then the timetable must be made."""
_HOUR_MS = 3_600_000


class _NearTheHour(SystemClock):
    """The machine's clock, put so that the next full hour is near."""

    def __init__(self, ahead_ms: int) -> None:
        now = time.time_ns() // 1_000_000
        self.hour_ms = (now // _HOUR_MS + 1) * _HOUR_MS
        self._shift_ms = self.hour_ms - ahead_ms - now

    def now_ms(self) -> int:
        """Read the wall clock, shifted."""
        return super().now_ms() + self._shift_ms


def measure(plan: Plan) -> Iterator[Result]:
    for number in (1_000, plan.times(10_000, 2_000)):
        room = plan.room / str(number)
        room.mkdir()
        hour_ms, runs = asyncio.run(_hour(room, number))
        _check(runs, number, hour_ms)
        started = [(run.started_at_ms or 0) - hour_ms for run in runs]
        ended = max((run.finished_at_ms or 0) - hour_ms for run in runs) / 1000
        yield Result(
            name=f"cron.{number}",
            what=f"{number:,} cron tasks due at the same time → their runs started, {_CAP} at once",
            ours=figure("start delay", "ms", [float(delay) for delay in started]),
            notes=(
                f"all {number:,} ran, each once; the last ended {ended:.1f} s after the slot "
                f"({number / ended:,.0f} runs/s of the server's own part)",
            ),
            also={"all_done_s": ended},
        )


def _check(runs: list[Run], number: int, hour_ms: int) -> None:
    seen = Counter(run.task_id for run in runs)
    odd = [run for run in runs if run.slot_ms != hour_ms or run.status is not RunStatus.SUCCESS]
    if len(seen) != number or max(seen.values()) != 1 or odd:
        raise Unmeasurable(f"{len(seen)} of {number} tasks ran, {len(runs)} runs, {len(odd)} odd")


async def _hour(room: Path, number: int) -> tuple[int, list[Run]]:
    entries = [_entry(room, each) for each in range(number)]
    clock = _NearTheHour(_AHEAD_MS + number)
    async with SqliteStore.open(room, clock, ballast_bytes=0) as store:
        bus = EventBus()
        registry = Registry(bus, clock, ["bench"])
        registry.started()
        registry.apply("bench", put=entries)
        dispatcher = LocalDispatcher(_CAP, clock, limit_of(registry))
        queue = Queue(store, registry, Chains(registry), dispatcher, bus, clock)
        cron = CronTrigger(queue, registry, store, bus, clock, ZoneInfo("UTC"))
        dispatcher.open()
        done = asyncio.Event()
        loops = [asyncio.create_task(cron.run())]
        loops += [asyncio.create_task(_run(queue, dispatcher, clock, number, done))]
        try:
            async with asyncio.timeout(_LONGEST_S):
                await done.wait()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops)
        return clock.hour_ms, await _all_runs(store)


def _entry(room: Path, number: int) -> Entry:
    task_id = f"t{number:05}"
    data = {"name": task_id, "runtime": "python", "trigger": {"cron": "0 * * * *"}}
    task = Task(task_id, TaskSpec.read(data), room, room / "task.py", "0" * 64, "bench")
    return Entry(task_id, "bench", room, task, (Condition(ConditionType.READY, True, "Loaded"),))


async def _run(
    queue: Queue, dispatcher: LocalDispatcher, clock: SystemClock, number: int, done: asyncio.Event
) -> None:
    """Take what may start and end it at once, as many at a time as there are slots."""
    left = number

    async def one(run_id: str) -> None:
        nonlocal left
        claim = await queue.claim(run_id)
        if claim is not None:
            await queue.finish(claim.run, Outcome(RunStatus.SUCCESS, clock.now_ms()))
        left -= 1
        if left == 0:
            done.set()

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(one(await dispatcher.next()))


async def _all_runs(store: SqliteStore) -> list[Run]:
    runs: list[Run] = []
    cursor: str | None = None
    while True:
        page = await store.list_runs(RunQuery(limit=1000, cursor=cursor))
        runs += page.items
        cursor = page.next_cursor
        if cursor is None:
            return runs


ROW = Row("cron", "10,000 cron tasks due in one minute, at the concurrency cap", measure)

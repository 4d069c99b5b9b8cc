"""A day of a thousand cron tasks on a real store, in simulated time: each slot once, on time."""

import asyncio
import gc
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dicode_mcp.clock import parse_iso
from dicode_mcp.protocols import RunQuery
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.spec.model import Task
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.triggers.cron import CronTrigger
from dicode_mcp.triggers.timetable import plan_of

START = parse_iso("2026-03-28T12:00:20Z")
"""The day in which Europe goes over to summer time."""
DAY_S = 24 * 3600
UTC = ZoneInfo("UTC")


def tasks() -> list[Task]:
    made: list[Task] = []
    for number in range(1000):
        trigger: dict[str, object] = {"cron": f"{number % 60} * * * *"}
        if number < 5:
            trigger = {"cron": "* * * * *"}
        elif number < 50:
            trigger = {"cron": "*/15 * * * *", "jitter": "5m"}
        elif number < 300:
            trigger = {"cron": f"{number % 60} 1-3 * * *", "timezone": "Europe/Berlin"}
        elif number < 600:
            trigger = {"cron": f"{number % 60} */6 * * *", "timezone": "Asia/Kolkata"}
        made.append(make_task(f"t{number:04}", trigger=trigger))
    return made


def expected(task: Task) -> dict[int, int]:
    """Give the slots of the day, each with the moment its run is to start."""
    plan = plan_of(task, UTC)
    assert plan is not None
    slots: dict[int, int] = {}
    slot = plan.schedule.after(START)
    while slot is not None and slot <= START + DAY_S * 1000:
        due = plan.schedule.due(task.id, slot)
        if due <= START + DAY_S * 1000:
            slots[slot] = due
        slot = plan.schedule.after(slot)
    return slots


async def all_runs(store: SqliteStore) -> list[Run]:
    runs: list[Run] = []
    cursor: str | None = None
    while True:
        page = await store.list_runs(RunQuery(limit=1000, cursor=cursor))
        runs += page.items
        cursor = page.next_cursor
        if cursor is None:
            return runs


@pytest.mark.slow
async def test_a_day_of_a_thousand_tasks_has_each_slot_once_and_on_time(tmp_path: Path) -> None:
    clock = FakeClock(START)
    every = tasks()
    async with SqliteStore.open(tmp_path, clock, ballast_bytes=0) as store:
        rooms = Rooms(store, clock)
        rooms.put(*every)
        cron = CronTrigger(rooms.queue, rooms.registry, store, rooms.bus, clock, UTC)
        async with running(InstantRunner(rooms).run()), running(cron.run()):
            await clock.asleep()
            await _live(rooms, DAY_S / 4)
            early = _objects()
            await _live(rooms, DAY_S * 3 / 4)
            late = _objects()
        runs = await all_runs(store)
    seen = Counter((run.task_id, run.slot_ms) for run in runs)
    wanted = {(task.id, slot): due for task in every for slot, due in expected(task).items()}
    assert seen == Counter(wanted.keys())
    assert all(run.created_at_ms == wanted[run.task_id, run.slot_ms or 0] for run in runs)
    assert {run.status for run in runs} == {RunStatus.SUCCESS}
    assert not any(run.catchup for run in runs)
    assert late - early < 5_000, "18 hours left objects behind"


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def _live(rooms: Rooms, seconds: float) -> None:
    clock, dispatcher = rooms.clock, rooms.dispatcher
    left = seconds
    while left > 0:
        step = min(left, clock.next_wake() or 0.001)
        clock.advance(step)
        left -= step
        for _ in range(3):
            await asyncio.sleep(0)
        await clock.asleep()
        await until(lambda: not dispatcher.waiting and not dispatcher.running)

"""Thousands of cron tasks due in the same minute, on a real store: none lost, none twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dicode_mcp.clock import parse_iso
from dicode_mcp.conditions import ConditionType
from dicode_mcp.protocols import RunQuery, Store
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.spec.model import Task
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.triggers.cron import CronTrigger

TASKS = 2_000
SLOTS = 8
UTC = ZoneInfo("UTC")
MINUTE = 60_000


def tasks(number: int = TASKS, **trigger: object) -> list[Task]:
    made = {"cron": "0 * * * *", **trigger}
    return [make_task(f"t{each:05}", trigger=made) for each in range(number)]


class Server:
    def __init__(self, rooms: Rooms, runner: InstantRunner, cron: CronTrigger) -> None:
        self.rooms, self.runner, self.cron = rooms, runner, cron

    async def quiet(self) -> None:
        """Wait until nothing more happens without time."""
        await self.rooms.clock.asleep()
        await until(self._is_quiet, deadline=120)

    def _is_quiet(self) -> bool:
        # That somebody sleeps says little: the detector of missed runs does, too.
        now, rooms = self.rooms.clock.now_ms(), self.rooms
        due = [self.cron.next_run_ms(entry.id) for entry in rooms.registry.entries()]
        none_due = all(at is not None and at > now for at in due)
        return none_due and not rooms.dispatcher.waiting and not rooms.dispatcher.running

    async def step(self, seconds: float) -> None:
        self.rooms.clock.advance(seconds)
        for _ in range(5):
            await asyncio.sleep(0)
        await self.quiet()

    async def jump(self, wall_ms: int) -> None:
        """Set the wall clock alone and let the loop come to see it."""
        self.rooms.clock.set_wall(wall_ms)
        await self.step(31)


@asynccontextmanager
async def serving(store: Store, clock: FakeClock, made: list[Task]) -> AsyncGenerator[Server]:
    rooms = Rooms(store, clock, slots=SLOTS)
    rooms.put(*made)
    await rooms.queue.recover()
    runner = InstantRunner(rooms)
    cron = CronTrigger(rooms.queue, rooms.registry, store, rooms.bus, clock, UTC)
    async with running(runner.run()), running(cron.run()):
        server = Server(rooms, runner, cron)
        await server.quiet()
        yield server


async def slots_of(store: Store) -> Counter[tuple[str, int | None]]:
    found: list[Run] = []
    cursor: str | None = None
    while True:
        page = await store.list_runs(RunQuery(limit=1000, cursor=cursor))
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            assert {run.status for run in found} <= {RunStatus.SUCCESS}
            return Counter((run.task_id, run.slot_ms) for run in found)


@pytest.mark.slow
async def test_all_that_is_due_in_one_minute_runs_once_at_the_cap(tmp_path: Path) -> None:
    clock, made = FakeClock(parse_iso("2026-01-01T11:59:30Z")), tasks()
    async with SqliteStore.open(tmp_path, clock, ballast_bytes=0) as store:
        async with serving(store, clock, made) as server:
            await server.step(30)
            noon = parse_iso("2026-01-01T12:00Z")
            assert await slots_of(store) == Counter({(task.id, noon): 1 for task in made})
            assert max(server.runner.most_on.values()) == 1
            assert server.rooms.condition("t00000", ConditionType.MISSED_RUNS) is None


@pytest.mark.slow
async def test_a_clock_that_jumps_under_load_starts_no_slot_twice_and_tells_what_was_missed(
    tmp_path: Path,
) -> None:
    """Half an hour back, forward over two slots, and back again, each with everything due."""
    made = tasks(500)
    noon = parse_iso("2026-01-01T12:00Z")
    clock = FakeClock(noon - 1_000)
    async with SqliteStore.open(tmp_path, clock, ballast_bytes=0) as store:
        async with serving(store, clock, made) as server:
            await server.step(2)
            await server.jump(noon - 30 * MINUTE)
            await server.step(30 * MINUTE / 1000)
            once = Counter({(task.id, noon): 1 for task in made})
            assert await slots_of(store) == once
            await server.jump(noon + 125 * MINUTE)
            twice = once + Counter({(task.id, noon + 120 * MINUTE): 1 for task in made})
            assert await slots_of(store) == twice
            await until(
                lambda: server.rooms.condition(made[-1].id, ConditionType.MISSED_RUNS) is not None
            )
            condition = server.rooms.condition(made[0].id, ConditionType.MISSED_RUNS)
            assert condition is not None
            assert condition.reason == "ClockJumped"
            await server.jump(noon + 110 * MINUTE)
            await server.step(20 * MINUTE / 1000)
            assert await slots_of(store) == twice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        # 02:30 does not exist: it comes at 03:00, once.
        ("2026-03-28T23:00Z", "2026-03-29T01:00Z"),
        # 02:30 exists twice: the first counts.
        ("2026-10-24T23:00Z", "2026-10-25T00:30Z"),
    ],
)
async def test_daylight_saving_under_load_gives_each_task_one_run(
    start: str, wanted: str, tmp_path: Path
) -> None:
    made = tasks(500, cron="30 2 * * *", timezone="Europe/Berlin")
    clock = FakeClock(parse_iso(start))
    async with SqliteStore.open(tmp_path, clock, ballast_bytes=0) as store:
        async with serving(store, clock, made) as server:
            for _ in range(8):
                await server.step(30 * MINUTE / 1000)
            assert await slots_of(store) == Counter(
                {(task.id, parse_iso(wanted)): 1 for task in made}
            )


@pytest.mark.slow
async def test_a_restart_in_the_middle_of_the_minute_loses_none_and_doubles_none(
    tmp_path: Path,
) -> None:
    made = tasks(1_000)
    noon = parse_iso("2026-01-01T12:00Z")
    clock = FakeClock(noon - 1_000)
    async with SqliteStore.open(tmp_path, clock, ballast_bytes=0) as store:
        rooms = Rooms(store, clock, slots=SLOTS)
        rooms.put(*made)
        cron = CronTrigger(rooms.queue, rooms.registry, store, rooms.bus, clock, UTC)
        async with running(cron.run()):
            await clock.asleep()
            clock.advance(1)
            await until(lambda: 100 < rooms.dispatcher.waiting)
        # The first server is gone, some of its rows written and none of its runs started.
        # What it had begun to write is on disk before the second reads.
        await store.set_schedule_slot("barrier", 0)
        clock.advance(20)
        async with serving(store, clock, made):
            assert await slots_of(store) == Counter({(task.id, noon): 1 for task in made})

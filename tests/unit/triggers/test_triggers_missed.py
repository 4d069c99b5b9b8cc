"""The detector of missed runs: why, how many, since when, and when it is forgotten."""

import asyncio
from zoneinfo import ZoneInfo

import pytest
from cron_days import open_shop

from dicode_mcp.clock import parse_iso
from dicode_mcp.conditions import ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.triggers.missed import MOST_COUNTED, Miss, Why, count
from dicode_mcp.triggers.schedule import Schedule

HOUR = 3600
NOON = parse_iso("2026-01-01T12:00Z")


def hourly(task_id: str = "t", **trigger: object) -> Task:
    return make_task(task_id, trigger={"cron": "0 * * * *", **trigger})


def told(rooms: Rooms, task_id: str = "t") -> tuple[str, str] | None:
    condition = rooms.condition(task_id, ConditionType.MISSED_RUNS)
    return (condition.reason, condition.message) if condition else None


async def test_a_task_that_misses_nothing_is_told_nothing() -> None:
    async with open_shop(None, FakeClock(NOON), hourly(jitter="10m")) as shop:
        await shop.let(6 * HOUR)
        assert told(shop.rooms) is None


@pytest.mark.parametrize("catchup", ["skip", "one", "all"])
async def test_slots_missed_while_the_server_was_off_are_told(catchup: str) -> None:
    store, clock, task = MemoryStore(), FakeClock(NOON + 60_000), hourly(catchup=catchup)
    async with open_shop(store, clock, task) as shop:
        await shop.let(60)
    clock.advance(5 * HOUR)
    async with open_shop(store, clock, task) as shop:
        await shop.settled()
        reason, message = told(shop.rooms) or ("", "")
        assert reason == "ServerOff"
        assert message.startswith("5 slots since 2026-01-01T13:00:00.000Z got no run in time")
        assert "the server was off" in message
        await shop.let(2 * HOUR)
        assert told(shop.rooms) == (reason, message)
        await shop.let(23 * HOUR, to_the_next=False)
        assert told(shop.rooms) is None


async def test_a_clock_that_is_put_forward_is_told() -> None:
    async with open_shop(None, FakeClock(NOON + 60_000), hourly()) as shop:
        shop.clock.set_wall(shop.clock.now_ms() + 3 * HOUR * 1000)
        await shop.let(60, to_the_next=False)
        reason, message = told(shop.rooms) or ("", "")
        assert reason == "ClockJumped"
        assert message.startswith("3 slots since 2026-01-01T13:00")


async def test_a_clock_that_is_put_back_or_shifted_by_law_misses_nothing() -> None:
    spring = FakeClock(parse_iso("2026-03-28T23:30Z"))
    task = hourly(timezone="Europe/Berlin")
    async with open_shop(None, spring, task) as shop:
        await shop.let(6 * HOUR)
        assert told(shop.rooms) is None
        shop.clock.set_wall(shop.clock.now_ms() - 2 * HOUR * 1000)
        await shop.let(4 * HOUR, to_the_next=False)
        assert told(shop.rooms) is None


async def test_a_store_that_takes_no_run_for_minutes_is_told() -> None:
    store = MemoryStore()
    async with open_shop(store, FakeClock(NOON + 60_000), hourly()) as shop:
        await shop.let(HOUR - 120)
        store.failure = DicodeError(Code.STORAGE_FULL, "full")
        await shop.let(600, to_the_next=False)
        store.failure = None
        await shop.let(60, to_the_next=False)
        reason, message = told(shop.rooms) or ("", "")
        assert reason == "StorageTrouble"
        assert message.startswith("1 slot since 2026-01-01T13:00")


async def test_a_loop_that_stood_still_is_told() -> None:
    async with open_shop(None, FakeClock(NOON + 60_000), hourly()) as shop:
        # Both clocks go on while nothing of the server does.
        shop.clock.advance(2 * HOUR)
        await shop.settled()
        assert (told(shop.rooms) or ("",))[0] == "Stalled"


async def test_a_run_that_waits_too_long_for_a_slot_is_told() -> None:
    clock = FakeClock(NOON + 60_000)
    task, big = hourly(), make_task("big", trigger={"cron": "59 * * * *"})
    async with open_shop(None, clock, task, big, held=("big",), slots=1) as shop:
        for _ in range(7):
            await shop.let(600, to_the_next=False, idle=False)
        assert shop.runner.on
        (waiting,) = await shop.rooms.runs("t")
        assert waiting.status is RunStatus.QUEUED
        assert told(shop.rooms) is None
        shop.runner.release("big")
        await shop.settled()
        reason, message = told(shop.rooms) or ("", "")
        assert reason == "QueueTooLong"
        assert "execution.max_concurrent_runs" in message


async def test_each_reason_is_kept_and_the_newest_stands_first_in_line() -> None:
    store, clock, task = MemoryStore(), FakeClock(NOON + 60_000), hourly()
    async with open_shop(store, clock, task) as shop:
        await shop.let(60)
    clock.advance(2 * HOUR)
    async with open_shop(store, clock, task) as shop:
        await shop.settled()
        shop.clock.set_wall(shop.clock.now_ms() + 3 * HOUR * 1000)
        await shop.let(60, to_the_next=False)
        reason, message = told(shop.rooms) or ("", "")
        assert reason == "ClockJumped"
        assert message.startswith("5 slots since 2026-01-01T13:00")
        assert message.index("was off") < message.index("put forward")


def test_a_long_absence_is_counted_up_to_a_bound_and_dated_exactly() -> None:
    minutely = Schedule("* * * * *", ZoneInfo("UTC"))
    year = 365 * 24 * HOUR * 1000
    number, first = count(Miss("t", minutely, Why.SERVER_OFF, NOON, after_ms=NOON - year))
    assert number == MOST_COUNTED
    assert first == NOON - year + 60_000


async def test_a_thousand_tasks_that_missed_are_logged_in_a_few_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, clock = MemoryStore(), FakeClock(NOON + 60_000)
    tasks = [hourly(f"t{number}") for number in range(300)]
    async with open_shop(store, clock, *tasks) as shop:
        await shop.let(60)
    clock.advance(2 * HOUR)
    async with open_shop(store, clock, *tasks) as shop:
        async with asyncio.timeout(20):
            while told(shop.rooms, "t299") is None:
                await shop.settled()
        lines = [record for record in caplog.records if "missed" in record.message]
        assert 1 <= len(lines) <= 30

"""Budgets of tasks: what counts, when runs are skipped, what is shown, and the next day."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from dicode_mcp.clock import parse_iso
from dicode_mcp.conditions import ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.queue import Claim
from dicode_mcp.runs.budget import DaySpent, day_of, next_day_ms
from dicode_mcp.runs.model import Outcome, Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.faults import Fault, FaultyStore
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

NOON = parse_iso("2026-03-28T12:00:00Z")
BERLIN = ZoneInfo("Europe/Berlin")


def costly(**budget: Any) -> Task:
    return make_task("t", budget=budget)


class Day:
    """A day of one task, run by hand."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms

    async def begin(self) -> Claim | None:
        """Submit a run and start it, if it may."""
        run = await self.rooms.queue.submit(RunRequest("t", Trigger.API))
        if run.status.ended:
            assert (run.status, run.reason) == (RunStatus.SKIPPED, Reason.BUDGET)
            return None
        return await self.rooms.queue.claim(await self.rooms.dispatcher.next())

    async def end(self, claim: Claim, cpu_ms: int | None = None) -> Run:
        now = self.rooms.clock.now_ms()
        outcome = Outcome(RunStatus.SUCCESS, now, cpu_ms=cpu_ms)
        return await self.rooms.queue.finish(claim.run, outcome)

    async def whole(self, cpu_ms: int | None = None) -> bool:
        """Run once; tells whether it was let."""
        claim = await self.begin()
        if claim is not None:
            await self.end(claim, cpu_ms)
        return claim is not None

    def told(self) -> str | None:
        condition = self.rooms.condition("t", ConditionType.BUDGET_REACHED)
        return condition.message if condition else None


@asynccontextmanager
async def a_day(
    task: Task, store: Store | None = None, clock: FakeClock | None = None, zone: str = "UTC"
) -> AsyncGenerator[Day]:
    rooms = Rooms(store, clock or FakeClock(NOON), zone=ZoneInfo(zone))
    rooms.put(task)
    await rooms.queue.recover()
    async with running(rooms.budgets.run(rooms.bus)):
        await asyncio.sleep(0)
        yield Day(rooms)


async def test_runs_over_the_budget_are_skipped_and_say_when_it_begins_anew() -> None:
    async with a_day(costly(runs=2)) as day:
        assert [await day.whole() for _ in range(4)] == [True, True, False, False]
        runs = await day.rooms.runs("t")
        skipped = [run for run in runs if run.status is RunStatus.SKIPPED]
        assert len(skipped) == 2
        error = skipped[0].error
        assert error is not None
        assert "runs 2 of 2" in error.message
        assert "2026-03-29T00:00:00.000Z" in error.message
        assert "budget.runs" in (error.hint or "")
        assert "runs 2 of 2" in (day.told() or "")


async def test_processor_time_counts_when_a_run_ends_and_ends_no_run() -> None:
    async with a_day(costly(cpu_seconds=1.5)) as day:
        first, second = await day.begin(), await day.begin()
        assert first is not None
        assert second is not None
        await day.end(first, cpu_ms=1_600)
        assert "cpu_seconds 1.6 of 1.5" in (day.told() or "")
        assert not await day.whole()
        assert (await day.end(second, cpu_ms=100)).status is RunStatus.SUCCESS


async def test_tokens_count_as_soon_as_they_are_reported() -> None:
    async with a_day(costly(tokens=1_000)) as day:
        claim = await day.begin()
        assert claim is not None
        use = day.rooms.queue.use
        assert await use(claim.run, 400) == {"tokens": 400, "left": 600}
        assert await use(claim.run, 700) == {"tokens": 1_100, "left": 0}
        assert not await day.whole()
        assert "tokens 1,100 of 1,000" in (day.told() or "")
        ended = await day.end(claim)
        assert ended.tokens == 1_100
        stored = await day.rooms.store.get_run(claim.run.id)
        assert stored is not None
        assert stored.tokens == 1_100


async def test_tokens_are_kept_on_runs_of_tasks_without_a_budget() -> None:
    async with a_day(make_task("t")) as day:
        claim = await day.begin()
        assert claim is not None
        assert await day.rooms.queue.use(claim.run, 5) == {"tokens": 5, "left": None}
        assert (await day.end(claim)).tokens == 5
        assert not await day.rooms.store.spending(since_day="2000-01-01")


async def test_tokens_of_a_run_that_is_lost_are_not() -> None:
    store = MemoryStore()
    async with a_day(costly(tokens=10), store) as day:
        claim = await day.begin()
        assert claim is not None
        await day.rooms.queue.use(claim.run, 12)
    async with a_day(costly(tokens=10), store) as day:
        (run,) = await day.rooms.runs("t")
        assert (run.status, run.tokens) == (RunStatus.LOST, 12)
        assert not await day.whole()


async def test_what_was_spent_is_known_after_a_restart() -> None:
    store = MemoryStore()
    async with a_day(costly(runs=2), store) as day:
        await day.whole()
        await day.whole()
    async with a_day(costly(runs=2), store) as day:
        assert "runs 2 of 2" in (day.told() or "")
        assert not await day.whole()


async def test_the_next_day_opens_the_budget_by_itself() -> None:
    async with a_day(costly(runs=1), zone="Europe/Berlin") as day:
        await day.whole()
        assert not await day.whole()
        await day.rooms.clock.asleep()
        day.rooms.clock.advance(11 * 3600 + 1)
        await until(lambda: day.told() is None)
        assert await day.whole()


async def test_a_cron_task_has_the_days_of_its_own_zone() -> None:
    trigger = {"cron": "0 0 1 1 *", "timezone": "Asia/Tokyo"}
    task = make_task("t", trigger=trigger, budget={"runs": 1})
    async with a_day(task) as day:
        await day.whole()
        assert "2026-03-28T15:00:00.000Z" in (day.told() or "")


async def test_raising_the_budget_opens_it_and_lowering_closes_it() -> None:
    async with a_day(costly(runs=1)) as day:
        await day.whole()
        day.rooms.put(make_task("t", "1", budget={"runs": 3}))
        await until(lambda: day.told() is None)
        assert await day.whole()
        day.rooms.put(make_task("t", "2", budget={"runs": 2}))
        await until(lambda: day.told() is not None)
        assert not await day.whole()
        day.rooms.put(make_task("t", "3"))
        await until(lambda: day.told() is None)
        assert await day.whole()


async def test_queued_runs_over_the_budget_are_skipped_when_their_turn_comes() -> None:
    async with a_day(costly(runs=2)) as day:
        queue = day.rooms.queue
        for _ in range(4):
            await queue.submit(RunRequest("t", Trigger.API))
        claims = [await queue.claim(await day.rooms.dispatcher.next()) for _ in range(4)]
        assert sum(claim is not None for claim in claims) == 2
        runs = await day.rooms.runs("t")
        assert sorted(run.reason or "" for run in runs) == ["", "", "budget", "budget"]
        assert day.rooms.dispatcher.running == 2


async def test_starts_at_the_same_moment_do_not_share_the_last_run_of_a_day() -> None:
    async with a_day(costly(runs=1)) as day:
        queue = day.rooms.queue
        for _ in range(3):
            await queue.submit(RunRequest("t", Trigger.API))
        ids = [await day.rooms.dispatcher.next() for _ in range(3)]
        claims = await asyncio.gather(*(queue.claim(run_id) for run_id in ids))
        assert sum(claim is not None for claim in claims) == 1


async def test_a_start_that_fails_costs_nothing() -> None:
    async with a_day(costly(runs=1)) as day:
        queue = day.rooms.queue
        run = await queue.submit(RunRequest("t", Trigger.API))
        run_id = await day.rooms.dispatcher.next()
        await day.rooms.store.finish_run(run, Outcome(RunStatus.CANCELLED, NOON))
        with pytest.raises(DicodeError) as refusal:
            await queue.claim(run_id)
        assert refusal.value.code is Code.CONFLICT
        assert day.told() is None
        assert await day.whole()


async def test_a_report_that_cannot_be_stored_is_not_counted() -> None:
    store = MemoryStore()
    async with a_day(costly(tokens=10), store) as day:
        claim = await day.begin()
        assert claim is not None
        store.failure = DicodeError(Code.STORAGE_FULL, "full")
        with pytest.raises(DicodeError):
            await day.rooms.queue.use(claim.run, 50)
        store.failure = None
        assert await day.rooms.queue.use(claim.run, 1) == {"tokens": 1, "left": 9}


async def test_tests_and_attempts_count_as_they_should() -> None:
    async with a_day(
        make_task("t", budget={"runs": 1}, retry={"attempts": 2, "backoff": 0})
    ) as day:
        queue = day.rooms.queue
        await queue.submit(RunRequest("t", Trigger.TEST))
        test = await queue.claim(await day.rooms.dispatcher.next())
        assert test is not None
        claim = await day.begin()
        assert claim is not None
        await queue.finish(claim.run, Outcome(RunStatus.FAILURE, NOON, reason="script_error"))
        second = await queue.claim(await day.rooms.dispatcher.next())
        assert second is None
        (attempt,) = [run for run in await day.rooms.runs("t") if run.attempt == 2]
        assert (attempt.status, attempt.reason) == (RunStatus.SKIPPED, Reason.BUDGET)


async def test_what_was_spent_long_ago_is_forgotten() -> None:
    store = MemoryStore()
    clock = FakeClock(NOON)
    async with a_day(costly(runs=1), store, clock) as day:
        await day.whole()
        await clock.asleep()
        clock.advance(4 * 86_400)
        await until(lambda: day.told() is None)
    assert list(await store.spending(since_day="2026-01-01")) == []


@pytest.mark.parametrize("fault", [Fault.TROUBLE_BEFORE, Fault.TROUBLE_AFTER])
async def test_each_run_is_counted_once_whichever_call_of_the_store_fails(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicode_mcp.queue._STORE_PAUSES_S", (0.0,))
    for number in range(1, 20):
        store = MemoryStore()
        faulty = FaultyStore(store, number, fault)
        rooms = Rooms(cast(Store, faulty), FakeClock(NOON))
        rooms.put(costly(runs=5, tokens=100))
        for _ in range(2):
            try:
                run = await rooms.queue.submit(RunRequest("t", Trigger.API, idempotency_key="k"))
            except DicodeError:
                run = await rooms.queue.submit(RunRequest("t", Trigger.API, idempotency_key="k"))
            if run.status.ended:
                break
            claim = await rooms.queue.claim(await rooms.dispatcher.next())
            assert claim is not None
            await rooms.queue.finish(claim.run, Outcome(RunStatus.SUCCESS, NOON, cpu_ms=7))
        spent = await store.spending(since_day="2026-01-01")
        assert spent == [DaySpent("t", "2026-03-28", runs=1, cpu_ms=7)], f"call {number}"
        if faulty.calls < number:
            break


@pytest.mark.parametrize(
    ("now", "zone", "day", "resets"),
    [
        ("2026-03-28T12:00Z", "UTC", "2026-03-28", "2026-03-29T00:00Z"),
        ("2026-03-28T23:30Z", "Europe/Berlin", "2026-03-29", "2026-03-29T22:00Z"),
        ("2026-10-24T23:00Z", "Europe/Berlin", "2026-10-25", "2026-10-25T23:00Z"),
        ("2026-05-01T14:59Z", "Asia/Tokyo", "2026-05-01", "2026-05-01T15:00Z"),
        # Midnight does not exist there on that day: clocks go from 23:59 to 01:00.
        ("2026-09-05T20:00Z", "America/Santiago", "2026-09-05", "2026-09-06T04:00Z"),
    ],
)
def test_a_day_is_a_local_date(now: str, zone: str, day: str, resets: str) -> None:
    at = parse_iso(now)
    assert day_of(at, ZoneInfo(zone)) == day
    assert next_day_ms(at, ZoneInfo(zone)) == parse_iso(resets)

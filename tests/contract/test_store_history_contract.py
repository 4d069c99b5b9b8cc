"""What every store keeps of the past: sums by day, pins, what may go, and what is let go of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import DayQuery, LogQuery, PruneQuery, RunQuery, Store
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Outcome, Payload, Run, RunError, RunStatus, Trigger, new_run_id
from dicode_mcp.runs.statistics import DAY_MS, Tally, day_of, durations_of
from dicode_mcp.secrets.bodies import SealedBodies
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import START_MS, FakeClock
from dicode_mcp.testing.store import MemoryStore

Opener = Callable[[Path], AbstractAsyncContextManager[Store]]
TODAY = day_of(START_MS)


@asynccontextmanager
async def _memory(_data_dir: Path) -> AsyncGenerator[Store]:
    yield MemoryStore()


def _sqlite(data_dir: Path) -> AbstractAsyncContextManager[Store]:
    return SqliteStore.open(data_dir, FakeClock(), ballast_bytes=0)


@asynccontextmanager
async def _sealed(data_dir: Path) -> AsyncGenerator[Store]:
    async with _sqlite(data_dir) as store:
        assert isinstance(store, SqliteStore)
        yield store.sealing(SealedBodies(b"k" * 32))


@pytest.fixture(params=[_memory, _sqlite, _sealed], ids=["memory", "sqlite", "sealed"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


async def queued(store: Store, at_ms: int = START_MS, task: str = "t", **changes: Any) -> Run:
    run = Run(new_run_id(at_ms), task, RunStatus.QUEUED, Trigger.MCP, at_ms, **changes)
    return await store.add_run(run, Payload({"n": 1}))


async def ended(
    store: Store,
    at_ms: int = START_MS,
    task: str = "t",
    *,
    lasted: int = 5,
    status: RunStatus = RunStatus.SUCCESS,
    value: str | None = None,
    cpu_ms: int | None = None,
    **changes: Any,
) -> Run:
    run = await queued(store, at_ms, task, **changes)
    on = await store.start_run(run.id, now_ms=at_ms, task_hash="h", revision=None)
    outcome = Outcome(status, at_ms + lasted, return_value=value, cpu_ms=cpu_ms)
    return await store.finish_run(on, outcome)


async def may_go(store: Store, **bounds: Any) -> list[str]:
    """Give all that may go, page by page."""
    query = PruneQuery("t", limit=2, **bounds)
    found: list[str] = []
    while True:
        page = await store.prunable_runs(query)
        found += page.items
        if page.next_cursor is None:
            return found
        query = replace(query, cursor=page.next_cursor)


# ── Sums ──


async def test_each_end_is_counted_on_its_day(store: Store) -> None:
    await ended(store, lasted=100, cpu_ms=70)
    await ended(store, lasted=300, status=RunStatus.TIMEOUT)
    await ended(store, START_MS - 10, lasted=20)
    await ended(store, task="u", status=RunStatus.CANCELLED)
    await queued(store)
    page = await store.run_days(DayQuery())
    shown = [(d.task_id, d.day, d.tally.runs, d.tally.failures) for d in page.days]
    assert shown == [("t", TODAY, 3, 1), ("u", TODAY, 1, 0)]
    tally = page.days[0].tally
    assert tally.by_status == {RunStatus.SUCCESS: 2, RunStatus.TIMEOUT: 1}
    assert (tally.duration_ms, tally.cpu_ms, tally.tokens) == (420, 70, 0)
    assert tally.durations == durations_of([100, 300, 20])
    assert page.totals.runs == 4
    assert not page.more


async def test_a_run_that_was_over_before_it_began_counts_without_a_duration(store: Store) -> None:
    now = START_MS
    error = RunError("overlap", "still on")
    run = Run(
        new_run_id(now),
        "t",
        RunStatus.SKIPPED,
        Trigger.CRON,
        now,
        finished_at_ms=now,
        reason="overlap",
        error=error,
        slot_ms=now,
    )
    await store.add_run(run, Payload())
    await store.add_run(replace(run, id=new_run_id(now)), Payload())
    before = await queued(store, now + 1)
    await store.finish_run(
        before,
        Outcome(RunStatus.CANCELLED, now + 2),
        [(replace(run, id=new_run_id(now), slot_ms=None), Payload())],
    )
    (day,) = (await store.run_days(DayQuery())).days
    assert day.tally == Tally({RunStatus.SKIPPED: 2, RunStatus.CANCELLED: 1})


async def test_an_end_that_is_refused_counts_nothing(store: Store) -> None:
    run = await ended(store)
    with pytest.raises(DicodeError):
        await store.finish_run(
            replace(run, status=RunStatus.RUNNING), Outcome(RunStatus.FAILURE, START_MS + 9)
        )
    assert (await store.run_days(DayQuery())).totals.runs == 1


async def test_sums_are_asked_for_by_day_and_task_newest_first(store: Store) -> None:
    for days_ago in range(4):
        for task in ("a", "b"):
            await ended(store, START_MS - days_ago * DAY_MS, task)
    page = await store.run_days(DayQuery(("b",), TODAY - 2, TODAY - 1))
    assert [(d.task_id, d.day) for d in page.days] == [("b", TODAY - 1), ("b", TODAY - 2)]
    page = await store.run_days(DayQuery(limit=3))
    assert [(d.task_id, d.day) for d in page.days] == [
        ("a", TODAY),
        ("b", TODAY),
        ("a", TODAY - 1),
    ]
    assert page.more
    assert page.totals.runs == 8
    assert (await store.run_days(DayQuery(()))).totals == Tally()


async def test_of_too_many_days_only_the_numbers_are_added_up(store: Store) -> None:
    for task in ("a", "b", "c"):
        await ended(store, task=task, lasted=7)
    page = await store.run_days(DayQuery(limit=2, measured=2))
    assert (page.totals.runs, page.totals.duration_ms) == (3, 21)
    assert page.totals.durations.quantile(0.5) is None
    assert len(page.days) == 2


async def test_sums_outlive_their_runs(store: Store) -> None:
    run = await ended(store)
    assert await store.delete_runs([run.id]) == 1
    assert (await store.run_days(DayQuery())).totals.runs == 1
    await ended(store)
    assert (await store.run_days(DayQuery())).totals.runs == 2


# ── Pins ──


async def test_a_pinned_run_stays_until_it_is_let_go(store: Store) -> None:
    run = await ended(store)
    assert (await store.pin_run(run.id, True)).pinned
    assert await may_go(store, keep=0) == []
    assert await store.delete_runs([run.id]) == 0
    assert await store.drop_inputs([run.id]) == 0
    stored = await store.get_run(run.id)
    assert stored
    assert stored.pinned
    assert not (await store.pin_run(run.id, False)).pinned
    assert await store.delete_runs([run.id]) == 1


async def test_pinning_an_unknown_run_says_so(store: Store) -> None:
    with pytest.raises(DicodeError) as caught:
        await store.pin_run("nothing", True)
    assert caught.value.code is Code.RUN_NOT_FOUND


# ── What may go ──


async def test_what_may_go_is_beyond_the_age_or_the_number_oldest_first(store: Store) -> None:
    runs = [await ended(store, START_MS + n * 10) for n in range(6)]
    await ended(store, START_MS, "other")
    ids = [run.id for run in runs]
    assert await may_go(store, keep=4) == ids[:2]
    assert await may_go(store, ended_before_ms=START_MS + 30) == ids[:3]
    assert await may_go(store, ended_before_ms=START_MS + 30, keep=5) == ids[:3]
    assert await may_go(store, ended_before_ms=START_MS + 10, keep=2) == ids[:4]
    assert await may_go(store, keep=6) == []
    assert await may_go(store) == []


async def test_a_run_that_began_long_ago_and_has_just_ended_is_not_old(store: Store) -> None:
    await ended(store, START_MS, lasted=DAY_MS)
    assert await may_go(store, ended_before_ms=START_MS + DAY_MS) == []
    assert len(await may_go(store, ended_before_ms=START_MS + DAY_MS + 1)) == 1


async def test_what_an_unfinished_run_refers_to_stays(store: Store) -> None:
    root = await ended(store)
    middle = await ended(store, root_run_id=root.id, parent_run_id=root.id)
    attempt = await ended(store)
    original = await ended(store)
    parent = await ended(store)
    free = await ended(store)
    await queued(store, root_run_id=root.id)
    await queued(store, retry_of=attempt.id)
    await queued(store, replay_of=original.id)
    last = await queued(store, parent_run_id=parent.id)
    assert await may_go(store, keep=0) == [free.id]
    await store.finish_run(last, Outcome(RunStatus.CANCELLED, START_MS + 1))
    assert set(await may_go(store, keep=0)) == {free.id, parent.id, last.id}
    assert middle.id not in await may_go(store, ended_before_ms=START_MS + DAY_MS)


async def test_the_tasks_that_have_runs_are_told_in_pages(store: Store) -> None:
    for task in ("b", "a/x", "a", "c"):
        await queued(store, task=task)
        await queued(store, task=task)
    assert await store.tasks_with_runs(limit=2) == ["a", "a/x"]
    assert await store.tasks_with_runs(after="a/x") == ["b", "c"]
    assert await store.tasks_with_runs(after="c") == []


async def test_the_size_of_runs_has_their_bodies_and_logs(store: Store) -> None:
    run = await ended(store, value='"' + "x" * 500 + '"')
    bare = await ended(store, START_MS + 5)
    await store.append_logs(run.id, [LogLine(1, START_MS, Level.INFO, "y" * 300)])
    await store.flush_logs(run.id)
    size = await store.size_of_runs([run.id, bare.id, "unknown"])
    assert (size.runs, size.oldest_ms, size.newest_ms) == (2, START_MS, START_MS + 5)
    assert size.bytes > 520
    assert (await store.size_of_runs([])).runs == 0


async def test_deleting_takes_the_log_and_the_values_with_it(store: Store) -> None:
    run = await ended(store, value="1")
    await store.append_logs(run.id, [LogLine(1, START_MS, Level.INFO, "y")])
    assert await store.delete_runs([run.id]) == 1
    assert await store.get_run(run.id) is None
    assert await store.get_payload(run.id) is None
    assert (await store.read_logs(run.id, LogQuery())).lines == ()
    assert (await store.size_of_runs([run.id])).bytes == 0


# ── Inputs and keys ──


async def test_inputs_are_let_go_and_that_is_known(store: Store) -> None:
    old = await ended(store)
    bare = Run(new_run_id(START_MS), "t", RunStatus.QUEUED, Trigger.MCP, START_MS)
    await store.add_run(bare, Payload())
    await store.finish_run(bare, Outcome(RunStatus.CANCELLED, START_MS + 1))
    waiting = await queued(store)
    young = await ended(store, START_MS + 100)
    page = await store.runs_with_input("t", ended_before_ms=START_MS + 50)
    assert page.items == (old.id,)
    assert await store.drop_inputs([old.id, bare.id, waiting.id]) == 1
    assert await store.get_payload(old.id) == Payload(dropped=True)
    assert await store.get_payload(bare.id) == Payload()
    assert await store.get_payload(waiting.id) == Payload({"n": 1})
    assert await store.get_payload(young.id) == Payload({"n": 1})
    assert (await store.runs_with_input("t", ended_before_ms=START_MS + 50)).items == ()


async def test_runs_with_input_come_in_pages(store: Store) -> None:
    ids = [(await ended(store, START_MS + n)).id for n in range(5)]
    found: list[str] = []
    cursor = None
    while True:
        page = await store.runs_with_input(
            "t", ended_before_ms=START_MS + DAY_MS, limit=2, cursor=cursor
        )
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == ids


async def test_only_keys_that_stand_for_nothing_are_forgotten(store: Store) -> None:
    old = await queued(store, idempotency_key="old")
    await queued(store, START_MS + 5, idempotency_key="young")
    assert await store.drop_expired_keys(now_ms=START_MS + DAY_MS - 1) == 0
    assert await store.drop_expired_keys(now_ms=START_MS + DAY_MS) == 1
    assert await store.drop_expired_keys(now_ms=START_MS + DAY_MS) == 0
    assert (await queued(store, START_MS + 9, idempotency_key="old")).id != old.id


# ── Counting and offsets ──


async def test_counting_stops_at_a_bound(store: Store) -> None:
    for _ in range(4):
        await ended(store)
    await ended(store, status=RunStatus.FAILURE)
    await ended(store, task="u")
    assert await store.matching_runs(RunQuery(), at_most=100) == 6
    assert await store.matching_runs(RunQuery(task_id="t"), at_most=100) == 5
    assert await store.matching_runs(RunQuery(), at_most=3) == 3
    both = frozenset({RunStatus.SUCCESS, RunStatus.FAILURE})
    assert await store.matching_runs(RunQuery("t", both), at_most=100) == 5
    assert await store.matching_runs(RunQuery("t", both), at_most=2) == 2
    assert await store.matching_runs(RunQuery(task_id="none"), at_most=9) == 0


@pytest.mark.parametrize("statuses", [None, {"success"}, {"success", "failure", "queued"}])
async def test_an_offset_leaves_out_the_newest(store: Store, statuses: set[str] | None) -> None:
    for n in range(5):
        await ended(store, START_MS + n * 3)
        await ended(store, START_MS + n * 3 + 1, status=RunStatus.FAILURE)
        await queued(store, START_MS + n * 3 + 2)
    wanted = frozenset(map(RunStatus, statuses)) if statuses else None
    every = (await store.list_runs(RunQuery(statuses=wanted))).items
    for offset in (0, 1, 4, len(every) - 1, len(every), len(every) + 5):
        page = await store.list_runs(RunQuery(statuses=wanted, offset=offset, limit=3))
        assert page.items == every[offset : offset + 3]
        assert (page.next_cursor is None) == (offset + 3 >= len(every))


@pytest.mark.parametrize("offset", [-1, 10_001])
async def test_an_offset_out_of_bounds_is_refused(store: Store, offset: int) -> None:
    with pytest.raises(DicodeError) as caught:
        await store.list_runs(RunQuery(offset=offset))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "cursor" in (caught.value.hint or "")


async def test_return_values_are_given_up_to_a_size(store: Store) -> None:
    small = await ended(store, value='"ü"')
    large = await ended(store, value='"' + "x" * 100 + '"')
    none = await ended(store)
    found = await store.return_values([small.id, large.id, none.id, "unknown"], at_most=50)
    assert found == {small.id: '"ü"', large.id: None}

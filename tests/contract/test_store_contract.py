"""What every store promises, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import (
    Approval,
    AuditEntry,
    AuditQuery,
    BearerKey,
    DevMode,
    LogQuery,
    Pause,
    RunQuery,
    SealedSecret,
    SourceOverrides,
    Store,
)
from dicode_mcp.runs.budget import DaySpent
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import (
    Outcome,
    Output,
    Payload,
    Run,
    RunError,
    RunStatus,
    Trigger,
    finished,
    new_run_id,
)
from dicode_mcp.runs.notices import NoticeState, Settled
from dicode_mcp.secrets.bodies import SealedBodies
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import START_MS, FakeClock
from dicode_mcp.testing.store import MemoryStore

Opener = Callable[[Path], AbstractAsyncContextManager[Store]]
HOUR = 3_600_000


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
def opener(request: pytest.FixtureRequest) -> Opener:
    return request.param


@pytest.fixture
async def store(opener: Opener, tmp_path: Path) -> AsyncGenerator[Store]:
    async with opener(tmp_path) as opened:
        yield opened


def a_run(task_id: str = "team/report", *, at_ms: int = START_MS, key: str | None = None) -> Run:
    return Run(
        new_run_id(at_ms), task_id, RunStatus.QUEUED, Trigger.MCP, at_ms, idempotency_key=key
    )


async def started(store: Store, run: Run) -> Run:
    await store.add_run(run, Payload())
    return await store.start_run(run.id, now_ms=START_MS + 1, task_hash="h1", revision="c0ffee")


async def ended(store: Store, run: Run, status: RunStatus = RunStatus.SUCCESS) -> Run:
    return await store.finish_run(await started(store, run), Outcome(status, START_MS + 2))


def lines(first: int, last: int, level: Level = Level.INFO) -> list[LogLine]:
    return [LogLine(n, START_MS + n, level, f"line {n}") for n in range(first, last + 1)]


async def test_a_run_comes_back_with_every_field_it_was_added_with(store: Store) -> None:
    run = Run(
        id=new_run_id(START_MS),
        task_id="team/report",
        status=RunStatus.QUEUED,
        trigger=Trigger.CRON,
        created_at_ms=START_MS,
        task_hash="abc",
        revision="c0ffee",
        actor="key:ci",
        attempt=2,
        fence=3,
        priority=-4,
        parent_run_id="p",
        root_run_id="r",
        replay_of="o",
        chain_depth=5,
        idempotency_key="k",
        not_before_ms=START_MS + 9,
        slot_ms=START_MS,
        catchup=True,
        pid=12,
    )
    assert await store.add_run(run, Payload()) == run
    assert await store.get_run(run.id) == run


async def test_a_payload_comes_back_as_json_would_give_it(store: Store) -> None:
    run, bare = a_run(), a_run()
    payload = Payload({"n": 1, "ü": [None, True, 1.5, 2**70]}, input="\ud800\0", request={"a": {}})
    await store.add_run(run, payload)
    await store.add_run(bare, Payload())
    assert await store.get_payload(run.id) == payload
    assert await store.get_payload(bare.id) == Payload()
    assert await store.get_payload("unknown") is None


async def test_a_payload_that_is_not_json_is_refused_and_leaves_no_run(store: Store) -> None:
    run = a_run()
    with pytest.raises(DicodeError) as caught:
        await store.add_run(run, Payload({"x": object()}))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert await store.get_run(run.id) is None


async def test_a_second_run_with_the_same_id_is_a_conflict(store: Store) -> None:
    run = a_run()
    await store.add_run(run, Payload({"n": 1}))
    with pytest.raises(DicodeError) as caught:
        await store.add_run(run, Payload({"n": 2}))
    assert caught.value.code is Code.CONFLICT
    assert await store.get_payload(run.id) == Payload({"n": 1})


async def test_a_claimed_run_is_running_with_a_greater_fence(store: Store) -> None:
    run = a_run()
    claimed = await started(store, run)
    expected = replace(
        run,
        status=RunStatus.RUNNING,
        fence=1,
        started_at_ms=START_MS + 1,
        task_hash="h1",
        revision="c0ffee",
    )
    assert claimed == expected
    assert await store.get_run(run.id) == expected


async def test_a_run_is_claimed_once(store: Store) -> None:
    run = a_run()
    await started(store, run)
    with pytest.raises(DicodeError) as caught:
        await store.start_run(run.id, now_ms=START_MS, task_hash="", revision=None)
    assert caught.value.code is Code.CONFLICT
    with pytest.raises(DicodeError) as caught:
        await store.start_run("unknown", now_ms=START_MS, task_hash="", revision=None)
    assert caught.value.code is Code.RUN_NOT_FOUND


async def test_an_ended_run_keeps_its_value_output_and_whole_error(store: Store) -> None:
    run = await started(store, a_run())
    outcome = Outcome(
        RunStatus.FAILURE,
        START_MS + 5,
        reason="script_error",
        error=RunError("ValueError", "m" * 5_000, "hint", "task.py", 3, "Traceback …"),
        return_value='{"a": 1}',
        output=Output("image", "image/png", "aGk=", base64=True, name="x.png", data={"w": 1}),
        exit_code=1,
        signal=None,
    )
    assert await store.finish_run(run, outcome) == finished(run, outcome)
    assert await store.get_run(run.id) == finished(run, outcome)


async def test_a_listing_leaves_out_values_and_tracebacks(store: Store) -> None:
    run = await started(store, a_run())
    error = RunError("E", "m" * 5_000, traceback="t" * 5_000)
    outcome = Outcome(
        RunStatus.FAILURE,
        START_MS + 5,
        error=error,
        return_value="1",
        output=Output("text", "", ""),
    )
    await store.finish_run(run, outcome)
    (listed,) = (await store.list_runs(RunQuery())).items
    assert (listed.return_value, listed.output) == (None, None)
    assert listed.error is not None
    assert listed.error.traceback is None
    assert len(listed.error.message) == 1_000
    assert (await store.last_runs([run.task_id]))[run.task_id] == listed


async def test_an_end_with_an_old_fence_or_status_is_refused_and_writes_nothing(
    store: Store,
) -> None:
    run = await started(store, a_run())
    follow = a_run("other")
    outcome = Outcome(RunStatus.SUCCESS, START_MS + 5, return_value="1")
    for stale in (replace(run, fence=0), replace(run, status=RunStatus.WAITING)):
        with pytest.raises(DicodeError) as caught:
            await store.finish_run(stale, outcome, [(follow, Payload())])
        assert caught.value.code is Code.CONFLICT
    with pytest.raises(DicodeError) as caught:
        await store.finish_run(replace(run, id="unknown"), outcome)
    assert caught.value.code is Code.RUN_NOT_FOUND
    assert await store.get_run(run.id) == run
    assert await store.get_run(follow.id) is None


async def test_a_run_ends_once(store: Store) -> None:
    run = await started(store, a_run())
    await store.finish_run(run, Outcome(RunStatus.SUCCESS, START_MS + 2))
    with pytest.raises(DicodeError) as caught:
        await store.finish_run(run, Outcome(RunStatus.FAILURE, START_MS + 3))
    assert caught.value.code is Code.CONFLICT
    found = await store.get_run(run.id)
    assert found is not None
    assert found.status is RunStatus.SUCCESS


async def test_the_transition_table_rules_an_end(store: Store) -> None:
    run = a_run()
    await store.add_run(run, Payload())
    with pytest.raises(DicodeError) as caught:
        await store.finish_run(run, Outcome(RunStatus.TIMEOUT, START_MS))
    assert caught.value.code is Code.CONFLICT
    cancelled = await store.finish_run(run, Outcome(RunStatus.CANCELLED, START_MS))
    assert cancelled.status is RunStatus.CANCELLED


async def test_follow_ups_are_there_when_the_end_is(store: Store) -> None:
    run = await started(store, a_run())
    chained, notice = a_run("next"), a_run("notify")
    follows = [(chained, Payload(input=1)), (notice, Payload({"x": 2}))]
    await store.finish_run(run, Outcome(RunStatus.SUCCESS, START_MS + 2), follows)
    assert {r.id for r in await store.unfinished_runs()} == {chained.id, notice.id}
    assert await store.get_payload(chained.id) == Payload(input=1)
    assert await store.get_payload(notice.id) == Payload({"x": 2})


async def test_a_follow_up_whose_key_is_used_is_not_added_again(store: Store) -> None:
    known = a_run("next", key="k")
    await store.add_run(known, Payload())
    run = await started(store, a_run())
    follow = a_run("next", key="k")
    await store.finish_run(run, Outcome(RunStatus.SUCCESS, START_MS), [(follow, Payload())])
    assert await store.get_run(follow.id) is None


async def test_an_end_whose_follow_up_cannot_be_added_has_not_happened(store: Store) -> None:
    other = a_run("other")
    await store.add_run(other, Payload())
    run = await started(store, a_run())
    fine = a_run("next")
    with pytest.raises(DicodeError) as caught:
        await store.finish_run(
            run, Outcome(RunStatus.SUCCESS, START_MS), [(fine, Payload()), (other, Payload())]
        )
    assert caught.value.code is Code.CONFLICT
    assert await store.get_run(run.id) == run
    assert await store.get_run(fine.id) is None


class Telling:
    """A notice: counts the failures of ``task``, and tells of each with ``follow_up``."""

    def __init__(self, task_id: str, follow_up: tuple[Run, Payload] | None = None) -> None:
        self.task_id = task_id
        self.follow_up = follow_up

    def settle(self, state: NoticeState) -> Settled:
        after = replace(
            state,
            count=state.count + 1,
            told=(*state.told, f"mark{state.count}"),
            since_ms=START_MS,
            undelivered=1,
            delivery_run_id="r1",
            delivery_ms=START_MS + 1,
            delivery_error="no network: grün \0",
        )
        return Settled(after, self.follow_up)


class Forgetting(Telling):
    """A notice after which there is nothing to remember."""

    def settle(self, state: NoticeState) -> Settled:
        assert state.count == 2
        return Settled(NoticeState(state.task_id))


async def test_a_notice_moves_the_state_of_its_task_and_adds_the_run_that_tells(
    store: Store,
) -> None:
    failure = Outcome(RunStatus.FAILURE, START_MS)
    first, second = a_run("notify"), a_run("notify")
    run = await started(store, a_run())
    await store.finish_run(run, failure, notice=Telling("other", (first, Payload(input=1))))
    assert await store.get_payload(first.id) == Payload(input=1)
    run = await started(store, a_run())
    await store.finish_run(run, failure, notice=Telling("other", (second, Payload())))
    assert await store.undelivered_notices() == {
        "other": NoticeState(
            "other",
            since_ms=START_MS,
            count=2,
            told=("mark0", "mark1"),
            undelivered=1,
            delivery_ms=START_MS + 1,
            delivery_run_id="r1",
            delivery_error="no network: grün \0",
        )
    }
    run = await started(store, a_run())
    await store.finish_run(run, failure, notice=Forgetting("other"))
    assert await store.undelivered_notices() == {}


async def test_an_end_that_is_refused_moves_no_notice(store: Store) -> None:
    other = a_run("other")
    await store.add_run(other, Payload())
    run = await started(store, a_run())
    failure = Outcome(RunStatus.FAILURE, START_MS)
    for stale, notice in (
        (replace(run, fence=9), Telling("x", (a_run("notify"), Payload()))),
        (run, Telling("x", (other, Payload()))),
    ):
        with pytest.raises(DicodeError):
            await store.finish_run(stale, failure, notice=notice)
        assert await store.undelivered_notices() == {}


async def test_the_same_key_gives_the_same_run_for_a_day(store: Store) -> None:
    first = a_run(key="k")
    await store.add_run(first, Payload())
    again = a_run(at_ms=START_MS + 24 * HOUR - 1, key="k")
    assert await store.add_run(again, Payload()) == first
    assert await store.get_run(again.id) is None
    later = a_run(at_ms=START_MS + 24 * HOUR, key="k")
    assert await store.add_run(later, Payload()) == later
    assert await store.add_run(a_run(at_ms=START_MS + 25 * HOUR, key="k"), Payload()) == later


async def test_a_key_belongs_to_its_task(store: Store) -> None:
    await store.add_run(a_run("one", key="k"), Payload())
    other = a_run("two", key="k")
    assert await store.add_run(other, Payload()) == other


async def test_a_key_gives_the_run_as_it_is_now(store: Store) -> None:
    first = await ended(store, a_run(key="k"))
    assert await store.add_run(a_run(key="k"), Payload()) == first


async def test_a_cron_slot_has_one_run_and_is_noted_with_it(store: Store) -> None:
    first = replace(a_run(), slot_ms=START_MS)
    await store.add_run(first, Payload())
    assert await store.schedule_slots() == {first.task_id: START_MS}
    again = replace(a_run(), slot_ms=START_MS)
    assert await store.add_run(again, Payload()) == first
    other = replace(a_run("other"), slot_ms=START_MS)
    assert await store.add_run(other, Payload()) == other


async def test_an_earlier_slot_does_not_move_the_schedule_back_unless_told(store: Store) -> None:
    for slot in (START_MS, START_MS - HOUR):
        await store.add_run(replace(a_run("t"), slot_ms=slot), Payload())
    assert await store.schedule_slots() == {"t": START_MS}
    await store.set_schedule_slot("t", START_MS - HOUR)
    await store.set_schedule_slot("u", 5)
    assert await store.schedule_slots() == {"t": START_MS - HOUR, "u": 5}


async def test_pages_go_from_new_to_old_without_gap_or_repeat(store: Store) -> None:
    made = [a_run(at_ms=START_MS + n // 3) for n in range(25)]
    for run in made:
        await store.add_run(run, Payload())
    expected = sorted(made, key=lambda r: (r.created_at_ms, r.id), reverse=True)
    seen: list[Run] = []
    cursor: str | None = None
    while True:
        page = await store.list_runs(RunQuery(limit=10, cursor=cursor))
        seen.extend(page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
        await store.add_run(a_run(at_ms=START_MS + HOUR), Payload())
    assert seen == expected


async def test_a_page_that_ends_with_the_last_run_has_no_cursor(store: Store) -> None:
    for _ in range(3):
        await store.add_run(a_run(), Payload())
    page = await store.list_runs(RunQuery(limit=3))
    assert (len(page.items), page.next_cursor) == (3, None)


async def test_filters_narrow_a_listing_alone_and_together(store: Store) -> None:
    old = await ended(store, a_run("a"), RunStatus.FAILURE)
    new = await ended(store, a_run("a", at_ms=START_MS + 10))
    child = replace(a_run("b", at_ms=START_MS + 20), parent_run_id=new.id, root_run_id=old.id)
    await store.add_run(child, Payload())
    ended_badly = frozenset({RunStatus.FAILURE, RunStatus.TIMEOUT})
    queued = frozenset({RunStatus.QUEUED})
    both = frozenset({RunStatus.FAILURE, RunStatus.SUCCESS, RunStatus.QUEUED})
    cases: list[tuple[RunQuery, list[str]]] = [
        (RunQuery(task_id="a"), [new.id, old.id]),
        (RunQuery(task_id="none"), []),
        (RunQuery(statuses=ended_badly), [old.id]),
        (RunQuery(statuses=both), [child.id, new.id, old.id]),
        (RunQuery(statuses=both, limit=2), [child.id, new.id]),
        (RunQuery(statuses=frozenset()), []),
        (RunQuery(since_ms=START_MS + 10), [child.id, new.id]),
        (RunQuery(parent_run_id=new.id), [child.id]),
        (RunQuery(root_run_id=old.id), [child.id]),
        (RunQuery(root_run_id=old.id, parent_run_id=new.id, statuses=queued), [child.id]),
        (RunQuery(root_run_id=old.id, statuses=ended_badly), []),
        (RunQuery(root_run_id=old.id, task_id="a"), []),
        (RunQuery(task_id="a", statuses=both, since_ms=START_MS + 1), [new.id]),
    ]
    for query, expected in cases:
        assert [run.id for run in (await store.list_runs(query)).items] == expected, query


@pytest.mark.parametrize(
    "cursor", ["", "x", "bm9wZQ", "WzEsMl0", "W10", "ü", "[1]", "e30", "W251bGwsIiJd"]
)
async def test_a_cursor_that_no_page_gave_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(DicodeError) as caught:
        await store.list_runs(RunQuery(cursor=cursor))
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_limit_below_one_is_refused(store: Store) -> None:
    for call in (
        store.list_runs(RunQuery(limit=0)),
        store.read_logs("r", LogQuery(limit=0)),
        store.list_audit(limit=0),
    ):
        with pytest.raises(DicodeError) as caught:
            await call
        assert caught.value.code is Code.INVALID_ARGUMENT


async def test_the_newest_run_of_each_task_is_found(store: Store) -> None:
    await store.add_run(a_run("a"), Payload())
    newest = a_run("a", at_ms=START_MS + 5)
    await store.add_run(newest, Payload())
    other = a_run("b")
    await store.add_run(other, Payload())
    await store.add_run(a_run("c"), Payload())
    assert await store.last_runs(["a", "b", "none"]) == {"a": newest, "b": other}


async def test_runs_are_counted_by_status_and_age(store: Store) -> None:
    await ended(store, a_run())
    await store.add_run(a_run(at_ms=START_MS + HOUR), Payload())
    await store.add_run(a_run(at_ms=START_MS + HOUR), Payload())
    assert await store.count_runs() == {RunStatus.SUCCESS: 1, RunStatus.QUEUED: 2}
    assert await store.count_runs(since_ms=START_MS + HOUR) == {RunStatus.QUEUED: 2}


async def test_unfinished_runs_come_oldest_first(store: Store) -> None:
    young = a_run(at_ms=START_MS + 9)
    await store.add_run(young, Payload())
    running = await started(store, a_run())
    await ended(store, a_run())
    assert [run.id for run in await store.unfinished_runs()] == [running.id, young.id]


async def test_a_deleted_run_leaves_nothing_behind(store: Store) -> None:
    done = await ended(store, a_run(key="k"))
    await store.append_logs(done.id, lines(1, 3))
    await store.flush_logs(done.id)
    await store.append_logs(done.id, lines(4, 5))
    live = await started(store, a_run())
    assert await store.delete_runs([done.id, done.id, live.id, "unknown"]) == 1
    assert await store.get_run(done.id) is None
    assert await store.get_payload(done.id) is None
    assert (await store.read_logs(done.id, LogQuery())).lines == ()
    assert await store.get_run(live.id) == live
    again = a_run(key="k")
    assert await store.add_run(again, Payload()) == again


async def test_log_lines_are_readable_at_once_and_after_a_flush(store: Store) -> None:
    for first in range(1, 100, 10):
        await store.append_logs("r", lines(first, first + 9))
        assert (await store.read_logs("r", LogQuery())).lines == tuple(lines(1, first + 9))
        if first % 3 == 0:
            await store.flush_logs("r")
            assert (await store.read_logs("r", LogQuery())).lines == tuple(lines(1, first + 9))


async def test_a_log_is_paged_by_the_last_seq_seen(store: Store) -> None:
    await store.append_logs("r", lines(1, 2_500))
    await store.flush_logs("r")
    await store.append_logs("r", lines(2_501, 2_600))
    page = await store.read_logs("r", LogQuery(limit=1_200))
    assert (page.lines[0].seq, page.lines[-1].seq, page.next_after) == (1, 1_200, 1_200)
    page = await store.read_logs("r", LogQuery(after=1_200, limit=1_400))
    assert page.lines == tuple(lines(1_201, 2_600))
    assert page.next_after is None
    page = await store.read_logs("r", LogQuery(after=2_600))
    assert (page.lines, page.next_after) == ((), None)


@pytest.mark.parametrize("tail", [0, 1, 50, 150, 2_700])
async def test_a_tail_gives_the_last_lines_in_order(store: Store, tail: int) -> None:
    await store.append_logs("r", lines(1, 2_500))
    await store.flush_logs("r")
    await store.append_logs("r", lines(2_501, 2_600))
    page = await store.read_logs("r", LogQuery(tail=tail))
    assert page.lines == tuple(lines(max(1, 2_601 - tail), 2_600))
    assert page.next_after is None


async def test_a_level_filter_shows_that_level_and_above(store: Store) -> None:
    await store.append_logs("r", lines(1, 1_500, Level.DEBUG))
    await store.append_logs("r", lines(1_501, 1_501, Level.ERROR))
    await store.flush_logs("r")
    await store.append_logs("r", [*lines(1_502, 1_510), *lines(1_511, 1_511, Level.WARN)])
    for query in (LogQuery(level=Level.WARN), LogQuery(level=Level.WARN, tail=10)):
        page = await store.read_logs("r", query)
        assert [line.seq for line in page.lines] == [1_501, 1_511]
    page = await store.read_logs("r", LogQuery(level=Level.WARN, tail=10, after=1_501))
    assert [line.seq for line in page.lines] == [1_511]


async def test_trimmed_lines_leave_one_line_that_says_how_many_they_were(store: Store) -> None:
    for first in range(1, 5_001, 500):
        await store.append_logs("r", lines(first, first + 499))
        await store.flush_logs("r")
    await store.append_logs("other", lines(1, 5_000))
    await store.trim_logs("r", after=1_000, before=2_001)
    await store.trim_logs("r", after=1_000, before=3_001)
    await store.trim_logs("r", after=1_000, before=3_001)
    found = (await store.read_logs("r", LogQuery(limit=9_000))).lines
    assert found[:1_000] == tuple(lines(1, 1_000))
    assert found[1_001:] == tuple(lines(3_001, 5_000))
    mark = found[1_000]
    assert (mark.seq, mark.level) == (3_000, Level.WARN)
    assert mark.ts_ms == lines(3_000, 3_000)[0].ts_ms
    assert "2,000 log lines were left out here" in mark.message
    assert len((await store.read_logs("other", LogQuery(limit=9_000))).lines) == 5_000


async def test_pages_and_tails_go_across_a_trimmed_place(store: Store) -> None:
    for first in range(1, 3_001, 500):
        await store.append_logs("r", lines(first, first + 499))
        await store.flush_logs("r")
    await store.trim_logs("r", after=1_000, before=2_001)
    page = await store.read_logs("r", LogQuery(after=990, limit=11))
    assert [line.seq for line in page.lines] == [*range(991, 1_001), 2_000]
    assert page.next_after == 2_000
    page = await store.read_logs("r", LogQuery(after=2_000, limit=2))
    assert [line.seq for line in page.lines] == [2_001, 2_002]
    # A reader who was within what went meanwhile learns of it too.
    page = await store.read_logs("r", LogQuery(after=1_500, limit=2))
    assert [line.seq for line in page.lines] == [2_000, 2_001]
    page = await store.read_logs("r", LogQuery(tail=1_002))
    assert [line.seq for line in page.lines] == [1_000, 2_000, *range(2_001, 3_001)]
    page = await store.read_logs("r", LogQuery(level=Level.WARN))
    assert [line.seq for line in page.lines] == [2_000]


async def test_trimming_spares_lines_that_are_not_on_disk_yet(store: Store) -> None:
    await store.append_logs("r", lines(1, 10))
    await store.trim_logs("r", after=0, before=1)
    await store.append_logs("r", lines(11, 20))
    await store.flush_logs("r")
    await store.append_logs("r", lines(21, 40))
    assert (await store.read_logs("r", LogQuery())).lines == tuple(lines(1, 40))
    await store.trim_logs("unknown", after=0, before=100)
    assert (await store.read_logs("unknown", LogQuery())).lines == ()


async def test_odd_characters_survive_in_a_log(store: Store) -> None:
    line = LogLine(1, START_MS, Level.INFO, "a\0b\ud800\n…" + "x" * 70_000)
    await store.append_logs("r", [line])
    await store.flush_logs("r")
    assert (await store.read_logs("r", LogQuery())).lines == (line,)


async def test_the_log_of_an_unknown_run_is_empty(store: Store) -> None:
    await store.flush_logs("unknown")
    await store.append_logs("unknown", [])
    assert (await store.read_logs("unknown", LogQuery())).lines == ()
    assert (await store.read_logs("unknown", LogQuery(tail=5))).lines == ()


async def test_kv_values_are_kept_per_task(store: Store) -> None:
    await store.kv_set("a", "k", '"1"', now_ms=START_MS)
    await store.kv_set("a", "k", '"2\ud800"', now_ms=START_MS)
    await store.kv_set("b", "k", "3", now_ms=START_MS)
    assert await store.kv_get("a", "k") == '"2\ud800"'
    assert await store.kv_delete("a", "k") is True
    assert await store.kv_delete("a", "k") is False
    assert await store.kv_get("a", "k") is None
    assert await store.kv_get("b", "k") == "3"


async def test_kv_keys_are_listed_by_exact_prefix(store: Store) -> None:
    for key in ("A_1", "a_1", "a%2", "ax", "b", "é"):
        await store.kv_set("t", key, "1", now_ms=START_MS)
    assert await store.kv_list("t") == ["A_1", "a%2", "a_1", "ax", "b", "é"]
    assert await store.kv_list("t", "a_") == ["a_1"]
    assert await store.kv_list("t", "a%") == ["a%2"]
    assert await store.kv_list("other") == []


@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
async def test_a_kv_key_no_database_could_keep_is_refused(store: Store, key: str) -> None:
    with pytest.raises(DicodeError) as caught:
        await store.kv_set("t", key, "1", now_ms=START_MS)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_pause_lasts_until_it_is_cleared(store: Store) -> None:
    await store.set_pause(Pause("t", START_MS, "me"))
    pause = Pause("t", START_MS + 1, "you", "broken")
    await store.set_pause(pause)
    assert await store.pauses() == {"t": pause}
    assert await store.clear_pause("t") is True
    assert await store.clear_pause("t") is False
    assert await store.pauses() == {}


@pytest.mark.parametrize(
    "overrides",
    [
        SourceOverrides(dev=DevMode()),
        SourceOverrides(dev=DevMode(local_path="/srv/täsks")),
        SourceOverrides(dev=DevMode(branch="fix/it")),
        SourceOverrides(pin="a" * 40),
        SourceOverrides(DevMode(branch="b"), "b" * 40),
    ],
)
async def test_what_was_decided_for_a_source_is_given_back(
    store: Store, overrides: SourceOverrides
) -> None:
    await store.set_source_overrides("other", SourceOverrides(pin="c" * 40))
    await store.set_source_overrides("src", SourceOverrides(DevMode("/x"), "d" * 40))
    await store.set_source_overrides("src", overrides)
    other = SourceOverrides(pin="c" * 40)
    assert await store.source_overrides() == {"src": overrides, "other": other}
    await store.set_source_overrides("src", SourceOverrides())
    await store.set_source_overrides("never", SourceOverrides())
    assert await store.source_overrides() == {"other": other}


async def test_sealed_secrets_are_kept_by_name(store: Store) -> None:
    one = SealedSecret("A", "sealed a", 1, "cli")
    two = SealedSecret(".check", "sealed check", 2, "server")
    await store.put_secrets([one, two])
    assert list((await store.secrets()).items()) == [(".check", two), ("A", one)]
    newer = SealedSecret("A", "sealed again", 3, "mcp")
    await store.put_secrets([newer])
    assert (await store.secrets())["A"] == newer
    assert await store.delete_secret("A")
    assert not await store.delete_secret("A")
    assert list(await store.secrets()) == [".check"]


async def test_bearer_keys_are_kept_oldest_first(store: Store) -> None:
    old = BearerKey("k1", "ci", "d1", ("read", "run:a/*"), 1, "local")
    new = BearerKey("k0", "me", "d2", ("admin",), 2, "local", expires_at_ms=9)
    await store.put_key(new)
    await store.put_key(old)
    assert list(await store.keys()) == [old, new]
    used = replace(old, last_used_at_ms=5, revoked_at_ms=6)
    await store.put_key(used)
    assert list(await store.keys()) == [used, new]


async def test_approvals_are_of_one_version_each(store: Store) -> None:
    first = Approval("t", "1" * 64, START_MS, "me", "a" * 40)
    second = Approval("t", "0" * 64, START_MS + 1, "me")
    other = Approval("u", "1" * 64, START_MS, "you")
    for approval in (replace(second, actor="nobody"), first, other, second):
        await store.add_approval(approval)
    assert {k: list(v) for k, v in (await store.approvals()).items()} == {
        "t": [first, second],
        "u": [other],
    }
    assert await store.clear_approvals("t") == 2
    assert await store.clear_approvals("t") == 0
    assert {k: list(v) for k, v in (await store.approvals()).items()} == {"u": [other]}


async def test_audit_entries_are_numbered_and_paged_newest_first(store: Store) -> None:
    several = [AuditEntry(START_MS + n, "me", "mcp", "run_task", f"t{n}", "ok") for n in range(5)]
    await store.append_audit(several, "five")
    last = AuditEntry(START_MS, "me", "cli", "cancel", "r", "no", {"why": [1]})
    await store.append_audit([last], "six")
    assert await store.audit_head() == "six"
    page = await store.list_audit(limit=2)
    assert page.items[0].detail == {"why": [1]}
    assert page.next_cursor is not None
    rest = await store.list_audit(before_id=int(page.next_cursor))
    assert [e.target for e in (*page.items, *rest.items)] == ["r", "t4", "t3", "t2", "t1", "t0"]
    assert rest.next_cursor is None
    ids = [e.id for e in (*page.items, *rest.items)]
    assert ids == sorted(set(ids), reverse=True)


async def test_audit_entries_are_found_by_what_is_asked_and_read_oldest_first(store: Store) -> None:
    assert await store.audit_head() is None
    wrote = [
        AuditEntry(START_MS, "me", "cli", "run_task", "infra/a", "ok"),
        AuditEntry(START_MS + 1, "key:ci", "mcp", "run_task", "infra_b", "ok"),
        AuditEntry(START_MS + 2, "me", "cli", "cancel_run", "infra/b", "ok"),
    ]
    await store.append_audit(wrote, "head")

    async def targets(**query: Any) -> list[str]:
        found = await store.list_audit(after_id=0, query=AuditQuery(**query))
        return [entry.target for entry in found.items]

    assert await targets() == ["infra/a", "infra_b", "infra/b"]
    assert await targets(target="infra/*") == ["infra/a", "infra/b"]
    assert await targets(target="infra/b") == ["infra/b"]
    assert await targets(actor="me", action="run_task") == ["infra/a"]
    assert await targets(actor="key:c*") == ["infra_b"]
    assert await targets(actor="key:c") == []
    assert await targets(actor="k_y:*") == []
    assert await targets(since_ms=START_MS + 1) == ["infra_b", "infra/b"]
    first = await store.list_audit(limit=2, after_id=0)
    assert [entry.target for entry in first.items] == ["infra/a", "infra_b"]
    assert first.next_cursor is not None
    rest = await store.list_audit(limit=2, after_id=int(first.next_cursor))
    assert [entry.target for entry in rest.items] == ["infra/b"]
    assert rest.next_cursor is None


async def test_the_instance_id_is_the_same_each_time(store: Store) -> None:
    known = await store.instance_id()
    assert known
    assert await store.instance_id() == known


async def test_a_signature_is_taken_once_until_its_time_is_over(
    opener: Opener, tmp_path: Path
) -> None:
    async with opener(tmp_path) as store:
        assert await store.claim_signatures(["a"], now_ms=1_000, expires_ms=5_000)
        assert not await store.claim_signatures(["a"], now_ms=5_000, expires_ms=9_000)
        assert not await store.claim_signatures(["b", "a"], now_ms=5_000, expires_ms=9_000)
        assert await store.claim_signatures(["b", "b"], now_ms=5_000, expires_ms=9_000)
        await store.release_signatures(["b", "unknown"])
        assert await store.claim_signatures(["b"], now_ms=5_000, expires_ms=9_000)
        assert await store.claim_signatures(["a"], now_ms=5_001, expires_ms=9_000)


async def test_signatures_survive_a_restart(tmp_path: Path) -> None:
    async with _sqlite(tmp_path) as store:
        assert await store.claim_signatures(["a"], now_ms=1_000, expires_ms=5_000)
    async with _sqlite(tmp_path) as store:
        assert not await store.claim_signatures(["a"], now_ms=2_000, expires_ms=5_000)


# What tasks with a budget have spent


async def test_what_a_day_costs_is_written_with_the_start_and_the_end(store: Store) -> None:
    run = a_run("t")
    await store.add_run(run, Payload())
    begun = await store.start_run(
        run.id, now_ms=1, task_hash="h", revision=None, spent=DaySpent("t", "2026-05-01", runs=1)
    )
    await store.note_tokens(run.id, 40, DaySpent("t", "2026-05-01", tokens=40))
    await store.note_tokens(run.id, 50, DaySpent("t", "2026-05-01", tokens=10))
    reported = await store.get_run(run.id)
    assert reported is not None
    assert (reported.status, reported.tokens) == (RunStatus.RUNNING, 50)
    outcome = Outcome(RunStatus.SUCCESS, 2, cpu_ms=7, tokens=50)
    await store.finish_run(begun, outcome, spent=DaySpent("t", "2026-05-02", cpu_ms=7))
    stored = await store.get_run(run.id)
    assert stored is not None
    assert (stored.tokens, stored.cpu_ms) == (50, 7)
    spent = await store.spending(since_day="2026-05-01")
    assert sorted(spent, key=lambda s: s.day) == [
        DaySpent("t", "2026-05-01", runs=1, tokens=50),
        DaySpent("t", "2026-05-02", cpu_ms=7),
    ]
    assert await store.forget_spending(before_day="2026-05-02") == 1
    assert await store.spending(since_day="") == [DaySpent("t", "2026-05-02", cpu_ms=7)]


async def test_a_start_or_an_end_that_is_refused_costs_nothing(store: Store) -> None:
    begun = await started(store, a_run("t"))
    spent = DaySpent("t", "2026-05-01", runs=1, cpu_ms=1, tokens=1)
    with pytest.raises(DicodeError):
        await store.start_run(begun.id, now_ms=1, task_hash="h", revision=None, spent=spent)
    stale = replace(begun, fence=begun.fence + 1)
    with pytest.raises(DicodeError):
        await store.finish_run(stale, Outcome(RunStatus.SUCCESS, 2), spent=spent)
    assert await store.spending(since_day="") == []


async def test_a_run_keeps_the_key_it_is_counted_by(store: Store) -> None:
    run = replace(a_run(), limit_key="acme/api", priority=-100)
    await store.add_run(run, Payload())
    (stored,) = await store.unfinished_runs()
    assert (stored.limit_key, stored.priority) == ("acme/api", -100)


async def test_what_tasks_used_is_kept_by_task_and_goes_with_it(store: Store) -> None:
    assert await store.accesses("a") is None
    await store.put_accesses({"a": "one", "b": "two é"})
    await store.put_accesses({"a": "three"})
    assert (await store.accesses("a"), await store.accesses("b")) == ("three", "two é")
    assert await store.forget_accesses(keep={"b", "c"}) == 1
    assert (await store.accesses("a"), await store.accesses("b")) == (None, "two é")
    assert await store.forget_accesses(keep={"b"}) == 0


async def test_a_run_keeps_what_it_was_not_held_to(store: Store) -> None:
    begun = await started(store, a_run("t"))
    await store.finish_run(begun, Outcome(RunStatus.SUCCESS, 2, unenforced="permissions.net: no"))
    stored = await store.get_run(begun.id)
    assert stored is not None
    assert stored.unenforced == "permissions.net: no"

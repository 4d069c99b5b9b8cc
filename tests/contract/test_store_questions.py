"""What every store does with questions and with what a run does once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.runs.questions import Answered, Question, put, read_draft
from dicode_mcp.secrets.bodies import SealedBodies
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import START_MS
from dicode_mcp.testing.store import MemoryStore

ANSWER = Answered({"answer": "ü\ud800\x00"}, START_MS + 500, "local", "http")


@pytest.fixture(params=["memory", "sqlite", "sealed"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with SqliteStore.open(tmp_path, SystemClock(), ballast_bytes=0) as opened:
        sealed = request.param == "sealed"
        yield opened.sealing(SealedBodies(b"k" * 32)) if sealed else opened


async def running(store: Store, at_ms: int = START_MS) -> Run:
    run = Run(new_run_id(at_ms), "team/deploy", RunStatus.QUEUED, Trigger.MCP, at_ms)
    await store.add_run(run, Payload({"n": 1}))
    return await store.start_run(run.id, now_ms=at_ms + 10, task_hash="h", revision=None)


def question(run: Run, n: int = 1, at_ms: int = START_MS + 100, seconds: float = 60) -> Question:
    args = {"schema": "string", "message": "Who\u00fc?", "key": f"k{n}", "timeout": seconds}
    return put(read_draft(args), run.id, n, at_ms)


async def refused(store: Store, run_id: str, n: int = 1) -> DicodeError:
    with pytest.raises(DicodeError) as caught:
        await store.answer_question(run_id, n, replace(ANSWER, actor="late"))
    return caught.value


async def test_a_suspended_run_waits_with_its_question(store: Store) -> None:
    run = await running(store)
    waiting = await store.suspend_run(run, question(run), cpu_ms=7)
    assert (waiting.status, waiting.paused_at_ms, waiting.fence) == (
        RunStatus.WAITING,
        START_MS + 100,
        1,
    )
    stored = await store.get_run(run.id)
    assert stored is not None
    assert (stored.status, stored.cpu_ms) == (RunStatus.WAITING, 7)
    assert list(await store.questions(run.id)) == [question(run)]
    assert list(await store.open_questions()) == [question(run)]
    assert [r.id for r in await store.unfinished_runs()] == [run.id]


async def test_only_the_running_run_that_was_claimed_can_be_suspended(store: Store) -> None:
    run = await running(store)
    for stale in (replace(run, fence=0), replace(run, status=RunStatus.QUEUED)):
        with pytest.raises(DicodeError) as caught:
            await store.suspend_run(stale, question(run))
        assert caught.value.code is Code.CONFLICT
    with pytest.raises(DicodeError) as caught:
        await store.suspend_run(replace(run, id="unknown"), question(run))
    assert caught.value.code is Code.RUN_NOT_FOUND
    assert list(await store.questions(run.id)) == []


async def test_an_answer_queues_the_run_and_only_the_first_counts(store: Store) -> None:
    run = await running(store)
    await store.suspend_run(run, question(run))
    queued = await store.answer_question(run.id, 1, ANSWER)
    assert (queued.id, queued.status) == (run.id, RunStatus.QUEUED)
    (kept,) = await store.questions(run.id)
    assert kept.answered == ANSWER
    assert list(await store.open_questions()) == []
    error = await refused(store, run.id)
    assert error.code is Code.CONFLICT
    assert "by local via http at 2026-01-01T00:00:00.500Z" in error.message
    assert error.data["answered_by"] == "local"
    assert (await store.questions(run.id))[0].answered == ANSWER


async def test_a_declined_question_is_an_answer_without_a_value(store: Store) -> None:
    run = await running(store)
    await store.suspend_run(run, question(run))
    await store.answer_question(run.id, 1, replace(ANSWER, value=None))
    (kept,) = await store.questions(run.id)
    assert kept.answered is not None
    assert kept.answered.declined
    assert "was declined already" in (await refused(store, run.id)).message


async def test_what_no_run_asks_takes_no_answer(store: Store) -> None:
    run = await running(store)
    assert (await refused(store, run.id)).code is Code.CONFLICT
    assert (await refused(store, "unknown")).code is Code.RUN_NOT_FOUND
    waiting = await store.suspend_run(run, question(run))
    assert (await refused(store, run.id, 2)).code is Code.CONFLICT
    await store.finish_run(waiting, Outcome(RunStatus.CANCELLED, START_MS + 900))
    assert (await refused(store, run.id)).code is Code.CONFLICT
    assert list(await store.open_questions()) == []


async def test_the_time_without_a_process_is_in_no_duration(store: Store) -> None:
    run = await running(store)
    await store.suspend_run(run, question(run), cpu_ms=5)
    await store.answer_question(run.id, 1, ANSWER)
    again = await store.start_run(run.id, now_ms=START_MS + 1_100, task_hash="h2", revision="r")
    assert (again.started_at_ms, again.waited_ms, again.paused_at_ms) == (
        START_MS + 10,
        1_000,
        None,
    )
    assert (again.fence, again.task_hash) == (2, "h2")
    await store.suspend_run(again, question(run, 2, START_MS + 1_200), cpu_ms=3)
    await store.answer_question(run.id, 2, ANSWER)
    third = await store.start_run(run.id, now_ms=START_MS + 1_300, task_hash="h2", revision="r")
    ended = await store.finish_run(third, Outcome(RunStatus.SUCCESS, START_MS + 1_350, cpu_ms=2))
    assert ended.duration_ms == 90 + 100 + 50
    assert await store.get_run(run.id) == ended
    assert ended.cpu_ms == 10


async def test_a_run_that_ends_while_it_waits_lasted_until_its_question(store: Store) -> None:
    run = await running(store)
    waiting = await store.suspend_run(run, question(run))
    outcome = Outcome(RunStatus.TIMEOUT, START_MS + 60_100, reason="answer_timeout")
    assert (await store.finish_run(waiting, outcome)).duration_ms == 90
    stored = await store.get_run(run.id)
    assert stored is not None
    assert stored.duration_ms == 90


async def test_a_clock_that_was_put_back_makes_no_negative_wait(store: Store) -> None:
    run = await running(store)
    await store.suspend_run(run, question(run))
    await store.answer_question(run.id, 1, ANSWER)
    again = await store.start_run(run.id, now_ms=START_MS, task_hash="h", revision=None)
    assert again.waited_ms == 0


async def test_open_questions_come_by_their_deadline(store: Store) -> None:
    late, soon, other = [await running(store, START_MS + n) for n in range(3)]
    for run, seconds in ((late, 90.0), (soon, 30.0), (other, 60.0)):
        await store.suspend_run(run, question(run, seconds=seconds))
    assert [q.run_id for q in await store.open_questions()] == [soon.id, other.id, late.id]
    some = await store.open_questions([late.id, soon.id])
    assert [q.run_id for q in some] == [soon.id, late.id]


async def test_what_a_run_did_once_stays_as_it_was_first(store: Store) -> None:
    run = await running(store)
    assert await store.once_get(run.id, "k") is None
    assert await store.once_put(run.id, "k", '"a"') == '"a"'
    assert await store.once_put(run.id, "k", '"b"') == '"a"'
    assert await store.once_get(run.id, "k") == '"a"'
    with pytest.raises(DicodeError) as caught:
        await store.once_put("unknown", "k", "1")
    assert caught.value.code is Code.RUN_NOT_FOUND


async def test_a_run_keeps_no_more_than_a_thousand_values(store: Store) -> None:
    run = await running(store)
    for n in range(1_000):
        await store.once_put(run.id, f"k{n}", "1")
    with pytest.raises(DicodeError) as caught:
        await store.once_put(run.id, "more", "1")
    assert caught.value.code is Code.TOO_LARGE
    assert await store.once_put(run.id, "k1", "2") == "1"


async def test_questions_and_values_go_with_their_run(store: Store) -> None:
    run = await running(store)
    waiting = await store.suspend_run(run, question(run))
    await store.once_put(run.id, "k", "1")
    assert await store.delete_runs([run.id]) == 0
    await store.finish_run(waiting, Outcome(RunStatus.CANCELLED, START_MS + 900))
    assert await store.delete_runs([run.id]) == 1
    assert list(await store.questions(run.id)) == []
    assert await store.once_get(run.id, "k") is None


async def test_what_a_run_must_not_show_is_kept_besides_what_it_keeps_itself(store: Store) -> None:
    run = await running(store)
    assert await store.get_hidden(run.id) is None
    await store.put_hidden(run.id, '[["A", "1"]]')
    await store.put_hidden(run.id, '[["A", "1"], ["B", "2"]]')
    for n in range(1_000):
        await store.once_put(run.id, f"k{n}", "1")
    assert await store.get_hidden(run.id) == '[["A", "1"], ["B", "2"]]'
    with pytest.raises(DicodeError) as caught:
        await store.put_hidden("unknown", "[]")
    assert caught.value.code is Code.RUN_NOT_FOUND

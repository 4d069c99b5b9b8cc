"""What the queue writes after a failure that is tried again, and what waits for the last word."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dicode_mcp.runs.model import Payload, Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.spec.model import FailureChain, RunInputsSpec, Task
from dicode_mcp.telling import NotifySettings
from dicode_mcp.testing.rooms import End, InstantRunner, Rooms, make_task
from dicode_mcp.testing.waiting import running, until

FAILURE, SUCCESS, LOST = RunStatus.FAILURE, RunStatus.SUCCESS, RunStatus.LOST
AT_ONCE = {"attempts": 3, "backoff": 0}


def follows(task_id: str, *sources: str, on: str = "success", **spec: Any) -> Task:
    return make_task(task_id, trigger={"chain": {"from": list(sources), "on": on}}, **spec)


@asynccontextmanager
async def house(
    *tasks: Task, ends: Callable[[Run], End] | dict[str, End] | None = None, **rooms_with: Any
) -> AsyncGenerator[Rooms]:
    rooms = Rooms(**rooms_with)
    rooms.put(*tasks)
    async with running(InstantRunner(rooms, ends).run()):
        yield rooms


async def quiet(rooms: Rooms) -> None:
    await until(lambda: not rooms.dispatcher.waiting and not rooms.dispatcher.running)


async def start(rooms: Rooms, task_id: str, **request: Any) -> Run:
    run = await rooms.queue.submit(RunRequest(task_id, Trigger.MANUAL, **request))
    last = await rooms.queue.wait_series(run.id, 10)
    await quiet(rooms)
    return last


async def attempts_of(rooms: Rooms, task_id: str) -> list[Run]:
    """Give the runs of a task by attempt: on a clock that stands still their ids have no order."""
    return sorted(await rooms.runs(task_id), key=lambda run: run.attempt)


def succeeds_at(attempt: int) -> Callable[[Run], End]:
    return lambda run: SUCCESS if run.attempt >= attempt or run.task_id != "a" else FAILURE


async def test_each_attempt_is_a_row_of_its_own_with_the_same_payload() -> None:
    task = make_task("a", retry=AT_ONCE, params={"n": {"type": "number"}})
    async with house(task, ends=succeeds_at(3)) as rooms:
        last = await start(rooms, "a", params={"n": 4}, input={"x": [1]}, idempotency_key="k")
        runs = await attempts_of(rooms, "a")
        assert [run.status for run in runs] == [FAILURE, FAILURE, SUCCESS]
        assert [run.attempt for run in runs] == [1, 2, 3]
        assert [run.retry_of for run in runs] == [None, runs[0].id, runs[1].id]
        assert {run.root_run_id for run in runs} == {runs[0].id}
        assert last.id == runs[2].id
        for run in runs:
            assert await rooms.store.get_payload(run.id) == Payload({"n": 4}, {"x": [1]})
            attempts = await rooms.store.attempts(run.id)
            assert [attempt.id for attempt in attempts] == [run.id for run in runs]


async def test_failure_chains_follow_the_last_failed_attempt_only() -> None:
    tasks = (
        make_task("a", retry=AT_ONCE, on_failure_chain="alert"),
        make_task("alert"),
        follows("sad", "a", on="failure"),
        follows("both", "a", on="always"),
        follows("glad", "a"),
    )
    async with house(*tasks, ends={"a": FAILURE}) as rooms:
        last = await start(rooms, "a")
        assert last.attempt == 3
        for task_id in ("alert", "sad", "both"):
            (run,) = await rooms.runs(task_id)
            assert run.parent_run_id == last.id
        assert await rooms.runs("glad") == []


async def test_a_success_after_failures_is_followed_as_any_success_and_no_failure_is_told() -> None:
    tasks = (
        make_task("a", retry=AT_ONCE, on_failure_chain="alert"),
        make_task("alert"),
        follows("glad", "a"),
        follows("both", "a", on="always"),
        follows("sad", "a", on="failure"),
    )
    async with house(*tasks, ends=succeeds_at(2)) as rooms:
        last = await start(rooms, "a")
        for task_id in ("glad", "both"):
            (run,) = await rooms.runs(task_id)
            assert run.parent_run_id == last.id
        assert await rooms.runs("sad") == []
        assert await rooms.runs("alert") == []


async def test_only_the_last_failed_attempt_is_notified() -> None:
    tasks = (make_task("a", retry=AT_ONCE), make_task("tell"))
    settings = NotifySettings(task="tell")
    async with house(*tasks, ends={"a": FAILURE}, notify=settings) as rooms:
        last = await start(rooms, "a")
        (told,) = await rooms.runs("tell")
        assert told.parent_run_id == last.id


async def test_a_failure_chains_own_attempts_start_no_failure_chain() -> None:
    tasks = (make_task("a"), make_task("alert", retry=AT_ONCE, on_failure_chain="alert2"))
    default = FailureChain(task="alert")
    ends: dict[str, End] = {"a": FAILURE, "alert": FAILURE}
    async with house(*tasks, make_task("alert2"), ends=ends, on_failure_chain=default) as rooms:
        await start(rooms, "a")
        assert len(await attempts_of(rooms, "alert")) == 3
        assert await rooms.runs("alert2") == []


async def test_an_attempt_waits_for_its_time_and_holds_no_slot_meanwhile() -> None:
    tasks = (make_task("a", retry={"attempts": 2, "backoff": "1h"}), make_task("b"))
    async with house(*tasks, ends={"a": FAILURE}, slots=1) as rooms:
        first = await rooms.queue.submit(RunRequest("a", Trigger.MANUAL))
        await rooms.queue.wait(first.id, 10)
        following = await rooms.queue.next_attempt(await fresh(rooms, first.id))
        assert following is not None
        assert following.status is RunStatus.QUEUED
        assert following.not_before_ms is not None
        assert 0 <= following.not_before_ms - rooms.clock.now_ms() <= 3_600_000
        beside = await rooms.queue.submit(RunRequest("b", Trigger.MANUAL))
        assert (await rooms.queue.wait(beside.id, 10)).status is SUCCESS


async def fresh(rooms: Rooms, run_id: str) -> Run:
    run = await rooms.store.get_run(run_id)
    assert run is not None
    return run


async def test_a_wait_for_the_series_ends_at_once_when_the_next_attempt_is_far() -> None:
    task = make_task("a", retry={"attempts": 2, "backoff": "300h", "max_backoff": "300h"})
    async with house(task, ends={"a": FAILURE}) as rooms:
        first = await rooms.queue.submit(RunRequest("a", Trigger.MANUAL))
        seen = await rooms.queue.wait_series(first.id, 19)
        assert (seen.id, seen.status) == (first.id, FAILURE)


async def test_cancelling_a_waiting_attempt_ends_the_series_without_a_failure_chain() -> None:
    task = make_task("a", retry={"attempts": 3, "backoff": "9h"}, on_failure_chain="alert")
    async with house(task, make_task("alert"), ends={"a": FAILURE}) as rooms:
        first = await rooms.queue.submit(RunRequest("a", Trigger.MANUAL))
        following = await rooms.queue.next_attempt(await rooms.queue.wait(first.id, 10))
        assert following is not None
        ended = await rooms.queue.cancel(following.id)
        assert ended.status is RunStatus.CANCELLED
        assert (await rooms.queue.wait_series(first.id, None)).id == following.id
        assert len(await rooms.runs()) == 2


async def test_a_cancelled_run_is_not_tried_again() -> None:
    async with house(make_task("a", retry=AT_ONCE)) as rooms:
        run = await rooms.queue.submit(RunRequest("a", Trigger.MANUAL, not_before_ms=2**60))
        await rooms.queue.cancel(run.id)
        assert len(await rooms.runs()) == 1


async def test_a_run_that_a_crash_ended_is_tried_again_by_the_next_server() -> None:
    rooms = Rooms()
    task = make_task("a", retry={"attempts": 2, "backoff": 0, "on": ["lost"]})
    rooms.put(task, follows("sad", "a", on="failure"))
    run = await rooms.queue.submit(RunRequest("a", Trigger.MANUAL, input="kept"))
    assert await rooms.dispatcher.next() == run.id
    assert await rooms.queue.claim(run.id) is not None
    after = Rooms(rooms.store, rooms.clock)
    after.put(task, follows("sad", "a", on="failure"))
    assert await after.queue.recover() == (0, 1)
    async with running(InstantRunner(after).run()):
        last = await after.queue.wait_series(run.id, 10)
    assert (last.attempt, last.status, last.retry_of) == (2, SUCCESS, run.id)
    assert await after.store.get_payload(last.id) == Payload(input="kept")
    assert await after.runs("sad") == []


async def test_an_attempt_past_the_deadline_fails_and_the_failure_chain_follows_it() -> None:
    task = make_task(
        "a",
        retry={"attempts": 9, "backoff": "1ms", "deadline": "10s"},
        on_failure_chain="alert",
    )
    rooms = Rooms()
    rooms.put(task, make_task("alert"))
    run = await rooms.queue.submit(RunRequest("a", Trigger.MANUAL))
    claim = await rooms.queue.claim(await rooms.dispatcher.next())
    assert claim is not None
    runner = InstantRunner(rooms, {"a": FAILURE})
    await rooms.queue.finish(claim.run, runner.outcome(FAILURE))
    rooms.clock.advance(11)
    async with running(runner.run()):
        last = await rooms.queue.wait_series(run.id, None)
        await quiet(rooms)
    assert (last.attempt, last.status, last.reason) == (2, FAILURE, Reason.RETRY_DEADLINE)
    (alert,) = await rooms.runs("alert")
    assert alert.parent_run_id == last.id


@pytest.mark.parametrize("change", ["pause", "remove"])
async def test_a_task_that_is_paused_or_gone_is_not_tried_again_and_its_failure_is_final(
    change: str,
) -> None:
    rooms = Rooms()
    rooms.put(make_task("a", retry=AT_ONCE), follows("sad", "a", on="failure"))
    run = await rooms.queue.submit(RunRequest("a", Trigger.MANUAL))
    claim = await rooms.queue.claim(await rooms.dispatcher.next())
    assert claim is not None
    rooms.pause("a") if change == "pause" else rooms.remove("a")
    await rooms.queue.finish(claim.run, InstantRunner(rooms).outcome(FAILURE))
    assert [r.id for r in await rooms.runs("a")] == [run.id]
    assert len(await rooms.runs("sad")) == (1 if change == "pause" else 0)


async def test_a_chained_run_that_cannot_start_is_followed_as_a_failure() -> None:
    tasks = (
        make_task("a"),
        follows("b", "a", params={"n": {"type": "number", "required": True}}),
        follows("c", "b", on="failure"),
    )
    async with house(*tasks, ends={"a": (SUCCESS, '{"n": "many"}')}) as rooms:
        await start(rooms, "a")
        (b,), (c,) = await rooms.runs("b"), await rooms.runs("c")
        assert (b.status, b.reason) == (FAILURE, Reason.INVALID_PARAMS)
        assert c.parent_run_id == b.id


@pytest.mark.parametrize("by_default", [True, False])
async def test_inputs_that_are_not_to_be_kept_go_at_the_end_and_not_before_the_retries(
    by_default: bool,
) -> None:
    off = RunInputsSpec(enabled=False)
    spec: dict[str, Any] = {} if by_default else {"run_inputs": {"enabled": False}}
    task = make_task("a", retry=AT_ONCE, **spec)
    seen: list[Payload | None] = []
    with_default = {"run_inputs": off} if by_default else {}
    async with house(task, ends=succeeds_at(2), **with_default) as rooms:
        claim_of = rooms.queue.claim

        async def claim(run_id: str) -> Any:
            claimed = await claim_of(run_id)
            seen.append(claimed.payload if claimed else None)
            return claimed

        rooms.queue.claim = claim  # pyright: ignore[reportAttributeAccessIssue]
        await start(rooms, "a", input={"secret": 1})
        assert seen == [Payload(input={"secret": 1})] * 2
        for run in await rooms.runs("a"):
            assert await rooms.store.get_payload(run.id) == Payload(dropped=True)

"""Deadlines of questions: kept by the clock, from the store, after a restart too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dicode_mcp.errors import DicodeError
from dicode_mcp.runs.model import Outcome, Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.runs.questions import Answered, read_draft
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.waiting import running
from dicode_mcp.triggers.deadlines import Deadlines

TASKS = (
    make_task("ask", on_failure_chain="alert"),
    make_task("alert"),
)


def rooms(**given: Any) -> Rooms:
    made = Rooms(**given)
    made.put(*TASKS)
    return made


def deadlines(house: Rooms) -> Deadlines:
    return Deadlines(house.queue, house.store, house.bus, house.clock)


async def ask(house: Rooms, seconds: float) -> Run:
    run = await house.queue.submit(RunRequest("ask", Trigger.API))
    while (run_id := await house.dispatcher.next()) != run.id:
        await house.queue.claim(run_id)
    claim = await house.queue.claim(run.id)
    assert claim is not None
    draft = read_draft({"schema": "boolean", "message": "Go?", "timeout": seconds})
    return await house.queue.suspend(claim.run, draft)


async def status(house: Rooms, run: Run) -> tuple[RunStatus, str | None]:
    stored = await house.store.get_run(run.id)
    assert stored is not None
    return stored.status, stored.reason


async def test_a_run_ends_when_nobody_answers_in_time_and_its_failure_chain_fires() -> None:
    house = rooms()
    async with running(deadlines(house).run()):
        await house.clock.asleep()
        run = await ask(house, 3600)
        other = await ask(house, 7200)
        await house.clock.asleep()
        for _ in range(59):
            house.clock.advance(60)
            await house.clock.asleep()
        assert (await status(house, run))[0] is RunStatus.WAITING
        house.clock.advance(60)
        ended = await house.queue.wait(run.id, 10)
    assert (ended.status, ended.reason) == (RunStatus.TIMEOUT, Reason.ANSWER_TIMEOUT)
    assert ended.error is not None
    assert "within 1h" in ended.error.message
    assert (await status(house, other))[0] is RunStatus.WAITING
    (alert,) = await house.runs("alert")
    assert alert.parent_run_id == run.id


async def test_a_deadline_that_passed_while_no_server_ran_is_kept_at_its_start() -> None:
    before = rooms()
    run = await ask(before, 60)
    before.clock.advance(3600)
    after = rooms(store=before.store, clock=before.clock)
    assert await after.queue.recover() == (0, 0)
    async with running(deadlines(after).run()):
        ended = await after.queue.wait(run.id, 10)
    assert ended.reason == Reason.ANSWER_TIMEOUT
    assert ended.duration_ms == 0


async def test_an_answered_question_has_no_deadline_any_more() -> None:
    house = rooms()
    async with running(deadlines(house).run()):
        await house.clock.asleep()
        run = await ask(house, 30)
        await house.queue.answer(run.id, 1, Answered({"answer": True}, 5, "ann", "test"))
        await house.clock.asleep()
        house.clock.advance(60)
        await house.clock.asleep()
    assert await status(house, run) == (RunStatus.QUEUED, None)


async def test_an_answer_that_comes_while_the_run_is_ended_wins_or_is_told_so() -> None:
    house = rooms()
    run = await ask(house, 1)
    timeout = Outcome(RunStatus.TIMEOUT, 5, reason=Reason.ANSWER_TIMEOUT)
    answered = Answered({"answer": True}, 5, "ann", "test")
    both = await asyncio.gather(
        house.queue.answer(run.id, 1, answered),
        house.queue.finish(run, timeout),
        return_exceptions=True,
    )
    won = [result for result in both if isinstance(result, Run)]
    assert len(won) == 1
    assert sum(isinstance(result, DicodeError) for result in both) == 1
    if won[0].status is RunStatus.QUEUED:
        # Whoever came too late has not taken it out of the queue.
        assert await house.dispatcher.next() == run.id


@pytest.mark.parametrize("first", ["answer", "cancel"])
async def test_a_cancelled_run_stays_so_whether_it_was_answered_or_not(first: str) -> None:
    house = rooms()
    run = await ask(house, 60)
    answered = Answered({"answer": True}, 5, "ann", "test")
    steps = {
        "answer": lambda: house.queue.answer(run.id, 1, answered),
        "cancel": lambda: house.queue.cancel(run.id),
    }
    order = [first, *(name for name in steps if name != first)]
    await asyncio.gather(*(steps[name]() for name in order), return_exceptions=True)
    assert await status(house, run) == (RunStatus.CANCELLED, Reason.CANCELLED)


async def test_whoever_waits_for_a_run_is_told_of_its_question_if_they_want() -> None:
    house = rooms()
    run = await house.queue.submit(RunRequest("ask", Trigger.API))
    claim = await house.queue.claim(await house.dispatcher.next())
    assert claim is not None
    curious = asyncio.create_task(house.queue.wait(run.id, 20, question_after=0))
    patient = asyncio.create_task(house.queue.wait(run.id, 20))
    draft = read_draft({"schema": "boolean", "message": "Go?"})
    await asyncio.sleep(0)
    await house.queue.suspend(claim.run, draft)
    assert (await curious).status is RunStatus.WAITING
    assert house.dispatcher.running == 0
    assert (await house.queue.wait(run.id, 20, question_after=0)).status is RunStatus.WAITING
    await house.queue.answer(run.id, 1, Answered({"answer": True}, 5, "ann", "test"))
    again = await house.queue.claim(await house.dispatcher.next())
    assert again is not None
    assert (again.resumed, again.run.fence) == (True, 2)
    await house.queue.finish(again.run, Outcome(RunStatus.SUCCESS, house.clock.now_ms()))
    assert (await patient).status is RunStatus.SUCCESS


async def test_a_cancel_that_comes_while_the_question_is_stored_is_kept() -> None:
    house = rooms()
    run = await house.queue.submit(RunRequest("ask", Trigger.API))
    claim = await house.queue.claim(await house.dispatcher.next())
    assert claim is not None
    await house.queue.cancel(run.id)
    draft = read_draft({"schema": "boolean", "message": "Go?"})
    assert (await house.queue.suspend(claim.run, draft)).status is RunStatus.CANCELLED

"""Starts and ends of runs while the store is in trouble, and stops that come at odd moments."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from dicode_mcp import queue as queue_module
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.events import RunChanged
from dicode_mcp.runs.model import (
    Outcome,
    Payload,
    Reason,
    Run,
    RunError,
    RunRequest,
    RunStatus,
    Trigger,
)
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

REQUEST = RunRequest("a", Trigger.MANUAL)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(queue_module, "_STORE_PAUSES_S", (0.0,))


def trouble(code: Code) -> DicodeError:
    retry = Retry.AFTER if code is Code.STORAGE_FULL else Retry.BACKOFF
    return DicodeError(code, "trouble", retry=retry)


class Deaf(MemoryStore):
    """Does what it is told and then says that it could not, for the next ``deaf`` calls."""

    deaf = 0

    def _answer(self) -> None:
        if self.deaf:
            self.deaf -= 1
            raise trouble(Code.STORAGE_UNAVAILABLE)

    async def start_run(self, run_id: str, **named: Any) -> Run:
        run = await super().start_run(run_id, **named)
        self._answer()
        return run

    async def finish_run(
        self,
        run: Run,
        outcome: Outcome,
        follow_ups: Sequence[tuple[Run, Payload | None]] = (),
        **named: Any,
    ) -> Run:
        stored = await super().finish_run(run, outcome, follow_ups, **named)
        self._answer()
        return stored


@pytest.mark.parametrize("code", [Code.STORAGE_FULL, Code.STORAGE_UNAVAILABLE])
async def test_the_end_of_a_run_is_written_once_the_store_can(code: Code) -> None:
    store = MemoryStore()
    rooms = Rooms(store)
    rooms.put(make_task("a"))
    run = await rooms.queue.submit(REQUEST)
    claim = await rooms.queue.claim(await rooms.dispatcher.next())
    assert claim is not None
    store.failure = trouble(code)
    end = Outcome(RunStatus.SUCCESS, rooms.clock.now_ms())
    finishing = asyncio.create_task(rooms.queue.finish(claim.run, end))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not finishing.done()
    store.failure = None
    assert (await finishing).status is RunStatus.SUCCESS
    stored = await store.get_run(run.id)
    assert stored is not None
    assert stored.status is RunStatus.SUCCESS


async def test_a_run_that_cannot_be_claimed_yet_is_claimed_later() -> None:
    store = MemoryStore()
    rooms = Rooms(store)
    rooms.put(make_task("a"))
    run = await rooms.queue.submit(REQUEST)
    store.failure = trouble(Code.STORAGE_FULL)
    async with running(InstantRunner(rooms).run()):
        for _ in range(20):
            await asyncio.sleep(0)
        store.failure = None
        assert (await rooms.queue.wait(run.id, 10)).status is RunStatus.SUCCESS


async def test_a_store_that_is_closed_is_not_asked_for_ever() -> None:
    store = MemoryStore()
    rooms = Rooms(store)
    rooms.put(make_task("a"))
    await rooms.queue.submit(REQUEST)
    claim = await rooms.queue.claim(await rooms.dispatcher.next())
    assert claim is not None
    store.failure = DicodeError(Code.SHUTTING_DOWN, "closed", retry=Retry.BACKOFF)
    with pytest.raises(DicodeError) as caught:
        await rooms.queue.finish(claim.run, Outcome(RunStatus.SUCCESS, 1))
    assert caught.value.code is Code.SHUTTING_DOWN


async def test_answers_lost_after_the_commit_change_nothing() -> None:
    store = Deaf()
    rooms = Rooms(store)
    rooms.put(make_task("a"), make_task("b", trigger={"chain": {"from": "a"}}))
    run = await rooms.queue.submit(REQUEST)
    store.deaf = 2
    async with running(InstantRunner(rooms).run()):
        assert (await rooms.queue.wait(run.id, 10)).status is RunStatus.SUCCESS
        await until(lambda: not rooms.dispatcher.waiting and not rooms.dispatcher.running)
        (chained,) = await rooms.runs("b")
        assert chained.status is RunStatus.SUCCESS
        assert store.deaf == 0


async def test_an_end_that_another_wrote_is_a_conflict_still() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"))
    await rooms.queue.submit(REQUEST)
    claim = await rooms.queue.claim(await rooms.dispatcher.next())
    assert claim is not None
    await rooms.queue.finish(claim.run, Outcome(RunStatus.SUCCESS, 1))
    with pytest.raises(DicodeError) as caught:
        await rooms.queue.finish(claim.run, Outcome(RunStatus.FAILURE, 2))
    assert caught.value.code is Code.CONFLICT


async def test_a_cancel_between_the_claim_and_the_start_is_not_forgotten() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"))
    run = await rooms.queue.submit(REQUEST)
    assert await rooms.queue.claim(await rooms.dispatcher.next()) is not None
    await rooms.queue.cancel(run.id, Reason.REPLACED)
    stopped: list[Reason] = []
    rooms.queue.on_stop(run.id, stopped.append)
    assert stopped == [Reason.REPLACED]


async def test_a_recorded_run_is_over_before_it_began_and_takes_its_slot() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"), make_task("b", trigger={"chain": {"from": "a", "on": "always"}}))
    request = RunRequest("a", Trigger.CRON, slot_ms=60_000)
    error = RunError(Reason.OVERLAP, "the run before it is on", "wait")
    recorded = await rooms.queue.record(request, error)
    assert recorded.status is RunStatus.SKIPPED
    assert (recorded.reason, recorded.error) == (Reason.OVERLAP, error)
    assert recorded.finished_at_ms == recorded.created_at_ms
    again = await rooms.queue.record(request, error)
    assert again.id == recorded.id
    assert (await rooms.queue.submit(request)).id == recorded.id
    assert await rooms.store.schedule_slots() == {"a": 60_000}
    assert not rooms.dispatcher.waiting
    assert not await rooms.runs("b")


async def test_recording_for_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(DicodeError) as caught:
        await Rooms().queue.record(REQUEST, RunError(Reason.OVERLAP, "x"))
    assert caught.value.code is Code.TASK_NOT_FOUND


async def test_a_second_submit_hands_a_run_on_that_the_dispatcher_never_met() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"))
    request = RunRequest("a", Trigger.MANUAL, idempotency_key="k")
    first = await rooms.queue.submit(request)
    assert rooms.dispatcher.discard(first.id)
    second = await rooms.queue.submit(request)
    assert second.id == first.id
    assert await rooms.dispatcher.next() == first.id


class Slow(MemoryStore):
    """Commits a run only when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def add_run(self, run: Run, payload: Payload) -> Run:
        self.asked.set()
        await self.gate.wait()
        return await super().add_run(run, payload)


async def test_a_caller_who_leaves_during_the_commit_leaves_no_run_behind() -> None:
    store = Slow()
    rooms = Rooms(store)
    rooms.put(make_task("a"))
    async with running(InstantRunner(rooms).run()):
        caller = asyncio.create_task(rooms.queue.submit(REQUEST))
        await asyncio.wait_for(store.asked.wait(), 20)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        with rooms.bus.subscribe(kinds=(RunChanged,)) as events:
            store.gate.set()
            async with asyncio.timeout(20):
                while cast("RunChanged", await events.get()).status != "success":
                    pass
    assert [run.status for run in await rooms.runs()] == [RunStatus.SUCCESS]

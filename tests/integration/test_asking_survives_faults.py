"""Fail the N-th call of the store, for every N from the submit over a question to what follows.

Whatever call it is, and whether the process lives on or is gone: a run waits exactly when it has an
open question, one answer counts, and what follows from its end is there once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import pytest

from dicode_mcp import queue as queue_module
from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import Outcome, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.runs.questions import Answered, find, read_draft
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.faults import Fault, FaultyStore
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

TASKS = (
    make_task("asks", on_failure_chain="alert"),
    make_task("then", trigger={"chain": {"from": "asks"}}),
    make_task("alert"),
)
REQUEST = RunRequest("asks", Trigger.API, idempotency_key="once")
DRAFTS = [
    read_draft({"schema": "boolean", "message": "First?"}),
    read_draft({"schema": "boolean", "message": "Second?", "key": "second"}),
]
T = TypeVar("T")

CALLS_OF_A_QUIET_LIFE = 12
MORE_CALLS_THAN_THERE_ARE = 150


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(queue_module, "_STORE_PAUSES_S", (0.0,))


class Server:
    """A server whose task asks twice, and a human who answers for as long as it takes."""

    def __init__(self, store: Store) -> None:
        self.rooms = Rooms(store, slots=1)
        self.rooms.put(*TASKS)
        self.starts = 0

    async def live(self) -> None:
        await stubbornly(self.rooms.queue.recover)
        async with running(self._run()):
            run = await stubbornly(lambda: self.rooms.queue.submit(REQUEST))
            while not (await self._read(run.id)).status.ended:
                await self._answer(run.id)
                await asyncio.sleep(0)
            await until(
                lambda: not self.rooms.dispatcher.waiting and not self.rooms.dispatcher.running
            )

    async def _read(self, run_id: str) -> Run:
        run = await stubbornly(lambda: self.rooms.store.get_run(run_id))
        assert run is not None
        return run

    async def _answer(self, run_id: str) -> None:
        for question in await stubbornly(lambda: self.rooms.store.open_questions([run_id])):
            answered = Answered({"answer": True}, self.rooms.clock.now_ms(), "ann", "test")
            try:
                await self.rooms.queue.answer(run_id, question.n, answered)
            except DicodeError as error:
                if error.code not in (Code.CONFLICT, Code.STORAGE_UNAVAILABLE):
                    raise

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._start(await self.rooms.dispatcher.next()))

    async def _start(self, run_id: str) -> None:
        queue = self.rooms.queue
        claim = await queue.claim(run_id)
        assert claim is not None
        if claim.run.task_id == "asks":
            self.starts += 1
            asked = await stubbornly(lambda: self.rooms.store.questions(run_id))
            for draft in DRAFTS:
                if find(draft, 1, asked) is None:
                    await queue.suspend(claim.run, draft, cpu_ms=1)
                    return
        await queue.finish(claim.run, Outcome(RunStatus.SUCCESS, self.rooms.clock.now_ms()))


async def stubbornly(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except DicodeError:
            await asyncio.sleep(0)


async def whole(store: Store) -> None:
    """See that what is stored fits together at this moment."""
    for run in await Rooms(store).runs():
        asked = await store.questions(run.id)
        still_open = [q for q in asked if q.answered is None]
        assert [q.n for q in asked] == list(range(1, len(asked) + 1))
        if not run.status.ended:
            assert (run.status is RunStatus.WAITING) == bool(still_open), (run, asked)
        assert len(still_open) <= 1


async def live_through(store: Store, number: int, fault: Fault) -> bool:
    """Live with one fault, and after a crash once more; tells whether the fault came up."""
    faulty = FaultyStore(store, number, fault)
    life = asyncio.create_task(Server(cast(Store, faulty)).live())
    crash = asyncio.create_task(faulty.crashed.wait())
    async with asyncio.timeout(20):
        await asyncio.wait({life, crash}, return_when=asyncio.FIRST_COMPLETED)
    if crash.done():
        life.cancel()
        await asyncio.wait({life})
        # What had reached the disk when the process died is there; nothing comes after it.
        await store.set_schedule_slot("barrier", 0)
        await whole(store)
        async with asyncio.timeout(20):
            await Server(store).live()
        return True
    crash.cancel()
    await life
    return faulty.calls >= number


async def check(store: Store, context: str) -> None:
    await whole(store)
    runs = await Rooms(store).runs()
    (asks,) = [run for run in runs if run.task_id == "asks"]
    assert asks.status in (RunStatus.SUCCESS, RunStatus.LOST), context
    good = asks.status is RunStatus.SUCCESS
    asked = await store.questions(asks.id)
    if good:
        assert [q.message for q in asked] == ["First?", "Second?"], context
        assert all(q.answered is not None and q.answered.actor == "ann" for q in asked), context
        assert asks.fence == 3, context
        assert asks.cpu_ms == 2, context
    follows = [run for run in runs if run.task_id != "asks"]
    assert [run.task_id for run in follows] == (["then"] if good else ["alert"]), context
    assert all(run.status.ended for run in follows), context


@asynccontextmanager
async def memory(_: Path) -> AsyncGenerator[Store]:
    yield MemoryStore()


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncGenerator[Store]:
    await asyncio.to_thread(folder.mkdir)
    async with SqliteStore.open(folder, SystemClock(), ballast_bytes=0) as store:
        yield store


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("kind", [memory, pytest.param(sqlite, marks=pytest.mark.slow)])
async def test_a_question_and_its_answer_are_whole_whichever_call_of_the_store_fails(
    kind: type[object], fault: Fault, tmp_path: Path
) -> None:
    opened = memory if kind is memory else sqlite
    number = 0
    for number in range(1, MORE_CALLS_THAN_THERE_ARE):
        async with opened(tmp_path / str(number)) as store:
            came_up = await live_through(store, number, fault)
            await check(store, f"call {number}, {fault.name}")
        if not came_up:
            break
    assert number > CALLS_OF_A_QUIET_LIFE

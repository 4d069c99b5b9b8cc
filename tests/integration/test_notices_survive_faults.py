"""Fail the N-th call of the store, for every N from a failing run to the end of what tells of it.

Whatever call it is, and whether the process lives on or is gone, people are told exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from dicode_mcp import queue as queue_module
from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import RunRequest, RunStatus, Trigger
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.telling import NotifySettings
from dicode_mcp.testing.faults import Fault, FaultyStore
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

REQUEST = RunRequest("up", Trigger.API, idempotency_key="once")
CALLS_OF_A_QUIET_LIFE = 6
MORE_CALLS_THAN_THERE_ARE = 60


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(queue_module, "_STORE_PAUSES_S", (0.0,))


async def stubbornly(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await call()
            return
        except DicodeError:
            await asyncio.sleep(0)


async def live(store: Store, sound: Store) -> None:
    """Start a server on a store, submit as a stubborn client does, and run to the end.

    ``sound`` is the same store without its faults.
    """
    rooms = Rooms(store, notify=NotifySettings("notify"))
    rooms.put(make_task("up"), make_task("notify"))
    await stubbornly(rooms.queue.recover)
    async with running(InstantRunner(rooms, {"up": RunStatus.FAILURE}).run()):
        await stubbornly(lambda: rooms.queue.submit(REQUEST))
        await until(lambda: not rooms.dispatcher.waiting and not rooms.dispatcher.running)
        await told(Rooms(sound))


async def told(rooms: Rooms) -> None:
    """Wait for the end of what tells: it is handed over after the end that it is about."""
    async with asyncio.timeout(10):
        while True:
            runs = [run for run in await rooms.runs() if run.task_id == "notify"]
            if runs and all(run.status.ended for run in runs):
                return
            await asyncio.sleep(0)


async def live_through(store: Store, number: int, fault: Fault) -> bool:
    """Live with one fault, and after a crash once more; tells whether the fault came up."""
    faulty = FaultyStore(store, number, fault)
    life = asyncio.create_task(live(cast(Store, faulty), store))
    crash = asyncio.create_task(faulty.crashed.wait())
    async with asyncio.timeout(20):
        await asyncio.wait({life, crash}, return_when=asyncio.FIRST_COMPLETED)
    if crash.done():
        life.cancel()
        await asyncio.wait({life})
        await store.set_schedule_slot("barrier", 0)
        await live(store, store)
        return True
    crash.cancel()
    await life
    return faulty.calls >= number


async def check(store: Store, context: str) -> None:
    runs = {run.task_id: run for run in await Rooms(store).runs()}
    assert len(await Rooms(store).runs()) == 2, context
    up, notice = runs["up"], runs["notify"]
    assert up.status in (RunStatus.FAILURE, RunStatus.LOST), context
    assert notice.idempotency_key == f"notify:{up.id}", context
    payload = await store.get_payload(notice.id)
    assert payload is not None
    assert payload.input["event"] == "first_failure", context
    assert payload.input["run"]["status"] == up.status.value, context
    undelivered = await store.undelivered_notices()
    assert set(undelivered) == (set() if notice.status is RunStatus.SUCCESS else {"up"}), context


@asynccontextmanager
async def memory(_: Path) -> AsyncGenerator[Store]:
    yield MemoryStore()


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncGenerator[Store]:
    await asyncio.to_thread(folder.mkdir)
    async with SqliteStore.open(folder, SystemClock(), ballast_bytes=0) as store:
        yield store


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("kind", [memory, sqlite])
async def test_people_are_told_exactly_once_whichever_call_of_the_store_fails(
    kind: type[object], fault: Fault, tmp_path: Path
) -> None:
    opened = memory if kind is memory else sqlite
    for number in range(1, MORE_CALLS_THAN_THERE_ARE):
        async with opened(tmp_path / str(number)) as store:
            came_up = await live_through(store, number, fault)
            await check(store, f"call {number}, {fault.name}")
        if not came_up:
            break
    else:
        pytest.fail("the calls never came to an end")
    assert number > CALLS_OF_A_QUIET_LIFE

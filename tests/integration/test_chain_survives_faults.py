"""Fail the N-th call of the store, for every N from the submit to the end of the chain.

Whatever call it is, and whether the process lives on or is gone, each task of the chain has exactly
one run for each end that it follows.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from dicode_mcp import queue as queue_module
from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import DayQuery, Store
from dicode_mcp.runs.model import Run, RunRequest, RunStatus, Trigger
from dicode_mcp.runs.statistics import tally_of, together
from dicode_mcp.spec.model import Task
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.faults import Fault, FaultyStore
from dicode_mcp.testing.rooms import End, InstantRunner, Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

TASKS = (
    make_task("up", on_failure_chain="alert"),
    make_task("then", trigger={"chain": {"from": "up"}}),
    make_task("always", trigger={"chain": {"from": "up", "on": "always"}}),
    make_task("last", trigger={"chain": {"from": "always", "on": "always"}}),
    make_task("alert"),
)
REQUEST = RunRequest("up", Trigger.API, idempotency_key="once")
CALLS_OF_A_QUIET_LIFE = 10
"""Recover, submit, and for each of four runs the start and the end."""
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


@dataclass(frozen=True)
class World:
    """The tasks there are, how each run ends, and what is asked for."""

    tasks: tuple[Task, ...]
    ends: Callable[[Run], End]
    request: RunRequest


CHAINS = World(
    TASKS, lambda run: (RunStatus.SUCCESS, "[1, 2]" if run.task_id == "up" else "0"), REQUEST
)


async def live(store: Store, world: World = CHAINS) -> Rooms:
    """Start a server on a store, submit as a stubborn client does, and run to the end."""
    rooms = Rooms(store, slots=4)
    rooms.put(*world.tasks)
    await stubbornly(rooms.queue.recover)
    runner = InstantRunner(rooms, world.ends)
    async with running(runner.run()):
        await stubbornly(lambda: rooms.queue.submit(world.request))
        at = rooms.dispatcher
        await until(lambda: not (at.waiting or at.running or runner.busy))
    return rooms


async def live_through(
    store: Store, number: int, fault: Fault, then: int = 0, world: World = CHAINS
) -> bool:
    """Live with one fault, and after a crash once more; tells whether the fault came up.

    The second life meets the fault too, at call ``then``.
    """
    faulty = FaultyStore(store, number, fault)
    life = asyncio.create_task(live(cast(Store, faulty), world))
    crash = asyncio.create_task(faulty.crashed.wait())
    async with asyncio.timeout(20):
        await asyncio.wait({life, crash}, return_when=asyncio.FIRST_COMPLETED)
    if crash.done():
        life.cancel()
        await asyncio.wait({life})
        # What had reached the disk when the process died is there; nothing comes after it.
        await store.set_schedule_slot("barrier", 0)
        await (live_through(store, then, fault, 0, world) if then else live(store, world))
        return True
    crash.cancel()
    await life
    return faulty.calls >= number


async def check(store: Store, context: str) -> None:
    runs: dict[str, list[Run]] = {task.id: [] for task in TASKS}
    for run in await Rooms(store).runs():
        runs[run.task_id].append(run)
    assert all(run.status.ended for found in runs.values() for run in found), context
    (up,) = runs["up"]
    (always,) = runs["always"]
    (last,) = runs["last"]
    assert up.status in (RunStatus.SUCCESS, RunStatus.LOST), context
    good = up.status is RunStatus.SUCCESS
    assert len(runs["then"]) == (1 if good else 0), context
    assert len(runs["alert"]) == (0 if good else 1), context
    assert always.idempotency_key == f"chain:{up.id}", context
    assert (always.parent_run_id, last.parent_run_id) == (up.id, always.id), context
    payload = await store.get_payload(always.id)
    assert payload is not None
    assert payload.input == ([1, 2] if good else _lost(up)), context
    every = [run for found in runs.values() for run in found]
    assert (await store.run_days(DayQuery())).totals == together(map(tally_of, every)), context


def _lost(up: Run) -> object:
    assert up.error is not None
    error = {"code": up.error.code, "message": up.error.message}
    return {"status": "lost", "error": error, "returnValue": None}


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
async def test_a_chain_fires_exactly_once_whichever_call_of_the_store_fails(
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


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
async def test_a_second_crash_while_recovering_from_the_first_changes_nothing(fault: Fault) -> None:
    for first in range(1, CALLS_OF_A_QUIET_LIFE + 1):
        for second in range(1, CALLS_OF_A_QUIET_LIFE + 1):
            store = MemoryStore()
            await live_through(store, first, fault, then=second)
            await check(store, f"calls {first} and {second}, {fault.name}")


AGAIN = {"attempts": 9, "backoff": 0, "on": ["failure", "lost"]}


def _first_fails(run: Run) -> End:
    """Let ``a`` fail once and ``sad`` for good; all else succeeds with its name."""
    if run.task_id == "sad" or (run.task_id == "a" and run.attempt == 1):
        return RunStatus.FAILURE
    return (RunStatus.SUCCESS, f'"{run.task_id}"')


def _chain(*sources: str, join: str = "any", on: str = "success") -> dict[str, object]:
    return {"chain": {"from": list(sources), "join": join, "on": on}}


RETRIES = World(
    (
        make_task("top", retry=AGAIN, on_failure_chain="alert"),
        make_task("a", retry=AGAIN, trigger=_chain("top"), on_failure_chain="alert"),
        make_task("b", retry=AGAIN, trigger=_chain("top"), on_failure_chain="alert"),
        make_task("end", retry=AGAIN, trigger=_chain("a", "b", join="all")),
        make_task("sad", trigger=_chain("end")),
        make_task("unmet", trigger=_chain("end", "sad", join="all")),
        make_task("alert"),
    ),
    _first_fails,
    RunRequest("top", Trigger.API, idempotency_key="once"),
)
"""Attempts, a join of two that were tried again, and a join that can no longer come together."""


async def check_retries(store: Store, context: str) -> None:
    runs = await Rooms(store).runs()
    assert all(run.status.ended for run in runs), context
    for task_id in ("top", "a", "b", "end"):
        attempts = [run for run in runs if run.task_id == task_id]
        (first,) = [run for run in attempts if run.attempt == 1]
        line = await store.attempts(first.id)
        assert {run.id for run in line} == {run.id for run in attempts}, context
        assert [run.attempt for run in line] == list(range(1, len(line) + 1)), context
        assert line[-1].status is RunStatus.SUCCESS, (context, task_id)
        assert all(run.status is not RunStatus.SUCCESS for run in line[:-1]), context
        payloads = [await store.get_payload(run.id) for run in line]
        assert all(payload == payloads[0] for payload in payloads), context
        if task_id == "end":
            assert payloads[0] is not None
            assert payloads[0].input == {"a": "a", "b": "b"}, context
            assert first.idempotency_key == f"join:{first.parent_run_id}", context
    assert len([run for run in runs if run.task_id == "sad"]) == 1, context
    (unmet,) = [run for run in runs if run.task_id == "unmet"]
    assert (unmet.status, unmet.reason) == (RunStatus.SKIPPED, "join_incomplete"), context
    assert not [run for run in runs if run.task_id == "alert"], context


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("kind", [memory, sqlite])
async def test_attempts_and_joins_come_exactly_once_whichever_call_of_the_store_fails(
    kind: type[object], fault: Fault, tmp_path: Path
) -> None:
    opened = memory if kind is memory else sqlite
    for number in range(1, MORE_CALLS_THAN_THERE_ARE):
        async with opened(tmp_path / str(number)) as store:
            came_up = await live_through(store, number, fault, world=RETRIES)
            await check_retries(store, f"call {number}, {fault.name}")
        if not came_up:
            break
    else:
        pytest.fail("the calls never came to an end")
    assert number > CALLS_OF_A_QUIET_LIFE


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
async def test_attempts_and_joins_survive_a_second_crash(fault: Fault) -> None:
    for first in range(1, 20):
        for second in range(1, 14, 2):
            store = MemoryStore()
            await live_through(store, first, fault, then=second, world=RETRIES)
            await check_retries(store, f"calls {first} and {second}, {fault.name}")

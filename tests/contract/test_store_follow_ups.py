"""What every store does in the transaction that ends a run: attempts, joins, inputs that go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.runs.joins import Arrival, Join, Joins, Rows
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.secrets.bodies import SealedBodies
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import START_MS, FakeClock
from dicode_mcp.testing.store import MemoryStore

Opener = Callable[[Path], AbstractAsyncContextManager[Store]]
DONE = Outcome(RunStatus.SUCCESS, START_MS + 9)
BAD = Outcome(RunStatus.FAILURE, START_MS + 9)
JOIN = Join("end", ("a", "b"), "success")


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


def queued(task_id: str = "a", root: str | None = None, **fields: object) -> Run:
    run = Run(new_run_id(START_MS), task_id, RunStatus.QUEUED, Trigger.MCP, START_MS)
    return replace(run, root_run_id=root or run.id, **fields)  # pyright: ignore[reportArgumentType]


async def running(store: Store, run: Run, payload: Payload | None = None) -> Run:
    await store.add_run(run, payload or Payload())
    return await store.start_run(run.id, now_ms=START_MS + 1, task_hash="h", revision=None)


def feeding(run: Run, fits: bool = True, made: list[Run] | None = None) -> Joins:
    root = run.root_run_id or run.id

    def fire(join: Join, runs: Mapping[str, Run], last: Run) -> Rows:
        values = {source: found.return_value for source, found in runs.items()}
        row = queued(join.task_id, root, idempotency_key=f"join:{last.id}", parent_run_id=last.id)
        if made is not None:
            made.append(row)
        return [(row, Payload(input=values))]

    def unmet(task_id: str, arrived: Sequence[Arrival], runs: Sequence[Run]) -> Rows:
        row = queued(task_id, root, finished_at_ms=START_MS)
        told = [[arrival.source, arrival.fits] for arrival in arrived]
        assert [found.id for found in runs] == [arrival.run_id for arrival in arrived]
        return [(replace(row, status=RunStatus.SKIPPED), Payload(input=told))]

    return Joins(root, ((JOIN, Arrival(run.task_id, run.id, fits)),), fire, unmet)


async def ends_of(store: Store, root: str) -> list[tuple[RunStatus, object]]:
    found: list[tuple[RunStatus, object]] = []
    for run in await store.tree(root, 100):
        payload = await store.get_payload(run.id)
        if run.task_id == "end" and payload is not None:
            found.append((run.status, payload.input))
    return found


async def test_a_follow_up_without_a_payload_starts_with_what_the_run_started_with(
    store: Store,
) -> None:
    for payload in (Payload({"n": 1}, input=[2]), Payload()):
        run = await running(store, queued(), payload)
        again = queued(retry_of=run.id, attempt=2, idempotency_key=f"retry:{run.id}")
        await store.finish_run(run, BAD, [(again, None)], keep_input=False)
        assert await store.get_payload(again.id) == payload
        dropped = await store.get_payload(run.id)
        assert dropped == (Payload(dropped=True) if payload.params else Payload())


async def test_a_follow_up_that_is_there_already_is_not_added_twice(store: Store) -> None:
    first = await running(store, queued(), Payload(input=1))
    again = queued(retry_of=first.id, attempt=2, idempotency_key="retry:x")
    await store.finish_run(first, BAD, [(again, None)])
    other = await running(store, queued(), Payload(input=2))
    twin = queued(retry_of=other.id, attempt=2, idempotency_key="retry:x")
    await store.finish_run(other, BAD, [(twin, None)])
    assert await store.get_run(twin.id) is None
    assert await store.get_payload(twin.id) is None


async def test_the_attempts_of_a_wish_are_found_from_any_of_them_in_order(store: Store) -> None:
    runs = [queued()]
    for attempt in (2, 3, 4):
        runs.append(queued(root=runs[0].id, retry_of=runs[-1].id, attempt=attempt))
    for run in (*reversed(runs), queued()):
        await store.add_run(run, Payload())
    for run in runs:
        assert [found.id for found in await store.attempts(run.id)] == [r.id for r in runs]
    assert await store.attempts("unknown") == []


async def test_a_tree_has_its_root_first_and_is_cut_at_the_limit(store: Store) -> None:
    root = queued()
    later = [replace(queued(root=root.id), created_at_ms=START_MS + n) for n in (1, 2, 3)]
    for run in (*later, root, queued()):
        await store.add_run(run, Payload())
    assert [run.id for run in await store.tree(root.id, 10)] == [r.id for r in (root, *later)]
    assert [run.id for run in await store.tree(root.id, 2)] == [root.id, later[0].id]
    assert await store.tree("unknown", 10) == []


async def test_a_set_is_complete_once_and_then_used_up(store: Store) -> None:
    root = await running(store, queued("top"))
    made: list[Run] = []
    for task_id, value in (("a", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("b", "5")):
        run = await running(store, queued(task_id, root.id))
        outcome = replace(DONE, return_value=value)
        await store.finish_run(run, outcome, joins=feeding(run, made=made))
    ends = await ends_of(store, root.id)
    assert sorted(str(given) for _, given in ends) == [
        "{'a': '2', 'b': '3'}",
        "{'a': '4', 'b': '5'}",
    ]
    assert len(made) == 2


async def test_an_end_that_does_not_fit_takes_the_place_of_one_that_did(store: Store) -> None:
    root = await running(store, queued("top"))
    for task_id, fits in (("a", True), ("a", False), ("b", True)):
        run = await running(store, queued(task_id, root.id))
        await store.finish_run(run, DONE, joins=feeding(run, fits))
    assert await ends_of(store, root.id) == []
    last = await running(store, queued("a", root.id))
    await store.finish_run(last, DONE, joins=feeding(last))
    assert [status for status, _ in await ends_of(store, root.id)] == [RunStatus.QUEUED]


async def test_a_set_is_given_up_when_the_last_run_of_its_tree_has_ended(store: Store) -> None:
    root = await running(store, queued("top"))
    a = await running(store, queued("a", root.id))
    b = await running(store, queued("b", root.id))
    await store.finish_run(root, DONE, joins=replace(feeding(root), feeds=()))
    await store.finish_run(a, DONE, joins=feeding(a))
    assert await ends_of(store, root.id) == []
    await store.finish_run(b, BAD, joins=feeding(b, fits=False))
    expected = [(RunStatus.SKIPPED, [["a", True], ["b", False]])]
    assert await ends_of(store, root.id) == expected
    other = await running(store, queued("a"))
    await store.finish_run(other, DONE, joins=feeding(other))
    assert await ends_of(store, root.id) == expected


async def test_sources_that_end_at_once_complete_one_set(store: Store) -> None:
    root = await running(store, queued("top"))
    pairs = [[await running(store, queued(t, root.id)) for t in "ab"] for _ in range(8)]
    async with asyncio.TaskGroup() as group:
        for run in (run for pair in pairs for run in pair):
            group.create_task(store.finish_run(run, DONE, joins=feeding(run)))
    ends = await ends_of(store, root.id)
    # a and b alternate or not as the writes fall; never is one end used for two sets.
    assert 1 <= len(ends) <= 8
    assert {status for status, _ in ends} == {RunStatus.QUEUED}


async def test_an_end_that_is_refused_leaves_no_arrival(store: Store) -> None:
    root = await running(store, queued("top"))
    a = await running(store, queued("a", root.id))
    with pytest.raises(DicodeError) as caught:
        await store.finish_run(replace(a, fence=9), DONE, joins=feeding(a))
    assert caught.value.code is Code.CONFLICT
    b = await running(store, queued("b", root.id))
    await store.finish_run(b, DONE, joins=feeding(b))
    assert await ends_of(store, root.id) == []


async def test_deleting_a_run_takes_its_arrival_along(store: Store) -> None:
    root = await running(store, queued("top"))
    a = await running(store, queued("a", root.id))
    await store.finish_run(a, DONE, joins=feeding(a))
    assert await store.delete_runs([a.id]) == 1
    b = await running(store, queued("b", root.id))
    await store.finish_run(b, DONE, joins=feeding(b))
    assert await ends_of(store, root.id) == []

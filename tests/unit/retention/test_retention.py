"""What the retention lets go of by itself, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import RunQuery
from dicode_mcp.registry import Registry, SourceState
from dicode_mcp.retention import (
    FEWEST,
    FIRST_PASS_S,
    MOST,
    PASS_EVERY_S,
    Gone,
    Pace,
    Retention,
    Rule,
    gentle,
    rule_of,
)
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.spec.model import TaskSpec
from dicode_mcp.testing.clock import START_MS
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

DAY_S = 86_400
DAY_MS = DAY_S * 1000


class House:
    """Rooms with a history, and a retention of 30 days and 5 runs."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.rooms = Rooms(self.store)
        self.retention = Retention(
            self.store, self.rooms.registry, self.rooms.clock, Rule(30 * DAY_S, 5)
        )

    async def ran(self, task: str = "t", days_ago: float = 0, **changes: Any) -> str:
        at = START_MS - round(days_ago * DAY_MS)
        run = Run(new_run_id(at), task, RunStatus.QUEUED, Trigger.MCP, at, **changes)
        await self.store.add_run(run, Payload({"n": 1}))
        await self.store.finish_run(run, Outcome(RunStatus.CANCELLED, at + 1))
        return run.id

    async def left(self, task: str = "t") -> list[str]:
        page = await self.store.list_runs(RunQuery(task_id=task, limit=1000))
        return [run.id for run in page.items][::-1]


async def test_runs_beyond_the_age_or_the_number_go_by_themselves() -> None:
    house = House()
    old = [await house.ran(days_ago=31), await house.ran(days_ago=30.1)]
    young = [await house.ran(days_ago=days) for days in (29, 3, 2)]
    many = [await house.ran("busy", days_ago=9 - n) for n in range(9)]
    house.rooms.put(make_task("busy"))
    clock = house.rooms.clock
    async with running(house.retention.run()):
        await clock.asleep()
        clock.advance(FIRST_PASS_S - 1)
        await clock.asleep()
        assert len(await house.left()) == 5
        clock.advance(1)
        await until(lambda: clock.next_wake() == PASS_EVERY_S)
        assert await house.left() == young
        assert await house.left("busy") == many[4:]
        house.rooms.put(make_task("busy", retention={"runs": 2}))
        clock.advance(PASS_EVERY_S)
        await until(lambda: clock.next_wake() == PASS_EVERY_S)
        assert await house.left("busy") == many[7:]
    assert not set(old) & set(await house.left())


async def test_a_store_in_trouble_is_tried_again_at_the_next_pass() -> None:
    house = House()
    await house.ran(days_ago=40)
    house.store.failure = DicodeError(Code.STORAGE_UNAVAILABLE, "locked")
    clock = house.rooms.clock
    async with running(house.retention.run()):
        await clock.asleep()
        clock.advance(FIRST_PASS_S)
        await until(lambda: clock.next_wake() == PASS_EVERY_S)
        assert len(await house.left()) == 1
        house.store.failure = None
        clock.advance(PASS_EVERY_S)
        await until(lambda: clock.next_wake() == PASS_EVERY_S)
        assert await house.left() == []


async def test_pinned_and_needed_runs_stay_whatever_their_age() -> None:
    house = House()
    pinned = await house.ran(days_ago=99)
    await house.store.pin_run(pinned, True)
    root = await house.ran(days_ago=98)
    await house.ran(days_ago=97)
    at = START_MS - 90 * DAY_MS
    child = Run(
        new_run_id(at),
        "t",
        RunStatus.QUEUED,
        Trigger.CHAIN,
        at,
        root_run_id=root,
        parent_run_id=root,
    )
    await house.store.add_run(child, Payload())
    await house.retention.look()
    assert await house.left() == [pinned, root, child.id]


async def test_inputs_go_before_their_runs_when_the_task_says_so() -> None:
    house = House()
    house.rooms.put(
        make_task("secretive", run_inputs={"enabled": False}),
        make_task("week", run_inputs={"retention": "7d"}),
    )
    gone = await house.ran("secretive")
    old, young = await house.ran("week", days_ago=8), await house.ran("week", days_ago=6)
    kept = await house.ran("other", days_ago=20)
    house.rooms.clock.advance(1)
    await house.retention.look()
    found = {
        run_id: (await house.store.get_payload(run_id)) == Payload(dropped=True)
        for run_id in (gone, old, young, kept)
    }
    assert found == {gone: True, old: True, young: False, kept: False}


async def test_keys_that_stand_for_nothing_are_forgotten() -> None:
    house = House()
    first = await house.ran(days_ago=2, idempotency_key="k")
    await house.retention.look()
    assert await house.store.drop_expired_keys(now_ms=START_MS) == 0
    assert await house.left() == [first]


async def test_a_dry_run_tells_all_and_takes_nothing() -> None:
    house = House()
    await house.ran(days_ago=40)
    await house.ran("u", days_ago=2)
    found = house.retention.old_runs(gentle(), older_than_s=DAY_S, dry_run=True)
    steps = [step async for step in found]
    assert [(step.task_id, step.size.runs) for step in steps] == [("t", 1), ("u", 1)]
    assert all(step.size.bytes > 0 for step in steps)
    assert len(await house.left()) == 1


async def test_pruning_can_be_held_to_some_tasks() -> None:
    house = House()
    for task in ("a", "b", "c"):
        await house.ran(task, days_ago=2)

    async def all_of(**which: Any) -> list[Gone]:
        return [s async for s in house.retention.old_runs(gentle(), older_than_s=0, **which)]

    await all_of(task_id="a")
    await all_of(only="b".__eq__)
    assert [len(await house.left(task)) for task in ("a", "b", "c")] == [0, 0, 1]


@pytest.mark.parametrize(
    ("manifest", "wanted"),
    [
        ({}, Rule(100, 9, None)),
        ({"retention": {"age": "1h"}}, Rule(3600, 9, None)),
        ({"retention": {"runs": 3}}, Rule(100, 3, None)),
        ({"run_inputs": {"enabled": False, "retention": "1h"}}, Rule(100, 9, 0.0)),
        ({"run_inputs": {"retention": "1h"}}, Rule(100, 9, 3600)),
        ({"run_inputs": {"enabled": True}}, Rule(100, 9, None)),
    ],
)
def test_a_task_says_what_it_says_and_has_the_rest_from_the_server(
    manifest: dict[str, Any], wanted: Rule
) -> None:
    spec = TaskSpec.read(
        {"name": "T", "runtime": "python", "trigger": {"manual": True}, **manifest}
    )
    assert rule_of(spec, Rule(100, 9)) == wanted


def test_a_transaction_takes_as_many_runs_as_fit_its_time() -> None:
    pace = Pace(0.01, 1.0)
    for _ in range(50):
        pace.took(0.001)
    assert pace.runs == MOST
    for _ in range(50):
        pace.took(0.5)
    assert pace.runs == FEWEST
    pace.took(0.007)
    assert pace.runs == FEWEST


async def test_of_a_task_that_is_gone_runs_go_by_age_alone() -> None:
    house = House()
    await house.ran(days_ago=31)
    many = [await house.ran(days_ago=9 - n) for n in range(9)]
    await house.retention.look()
    assert await house.left() == many


async def test_nothing_goes_while_it_cannot_be_told_what_a_task_says() -> None:
    house = House()
    house.rooms.registry = Registry(house.rooms.bus, house.rooms.clock, ["slow"])
    house.retention = Retention(
        house.store, house.rooms.registry, house.rooms.clock, Rule(30 * DAY_S, 5)
    )
    run_id = await house.ran(days_ago=99)
    assert house.rooms.registry.starting
    await house.retention.look()
    house.rooms.registry.started()
    house.rooms.put_broken("t")
    await house.retention.look()
    assert await house.left() == [run_id]
    house.rooms.remove("t")
    failed = Condition(ConditionType.READY, False, "FetchFailed")
    house.rooms.registry.put_source(SourceState("git", "git", "https://x.example", None, (failed,)))
    await house.retention.look()
    assert await house.left() == [run_id]
    house.rooms.registry.put_source(SourceState("git", "git", "https://x.example"))
    await house.retention.look()
    assert await house.left() == []


async def test_what_a_task_used_goes_with_the_task_and_not_while_a_source_is_in_trouble() -> None:
    house = House()
    house.rooms.put(make_task("here"))
    await house.store.put_accesses({"here": "1", "gone": "2"})
    broken = Condition(ConditionType.READY, False, "FetchFailed")
    house.rooms.registry.put_source(SourceState("other", "local", "/nowhere", conditions=(broken,)))
    await house.retention.look()
    assert await house.store.accesses("gone") == "2"
    house.rooms.registry.put_source(SourceState("other", "local", "/nowhere"))
    await house.retention.look()
    assert (await house.store.accesses("gone"), await house.store.accesses("here")) == (None, "1")

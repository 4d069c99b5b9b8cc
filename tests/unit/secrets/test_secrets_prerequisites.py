"""``if_missing``: the task it names is started, once for a key and a while."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from dicode_mcp.prerequisites import REST_S, Prerequisites
from dicode_mcp.runs.follow_ups import MAX_CHAIN_DEPTH
from dicode_mcp.runs.model import Run, RunStatus, Trigger
from dicode_mcp.spec.model import EnvEntry
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.waiting import running, until

RUN = Run("r1", "team/t", RunStatus.RUNNING, Trigger.MCP, 0, root_run_id="r0")


class House:
    def __init__(self) -> None:
        self.rooms = Rooms()
        self.runner = InstantRunner(self.rooms)
        self.rooms.put(make_task("team/ask"), make_task("team/t"))
        self.room = Prerequisites(self.rooms.queue, self.rooms.registry, self.rooms.clock)

    async def missing(self, key: str = "token", task: str = "ask", run: Run = RUN) -> str:
        spec = {"name": "TOKEN", "secret": key, "if_missing": {"task": task}}
        made = make_task("team/t", permissions={"env": [spec]})
        (entry,) = made.spec.permissions.env
        assert isinstance(entry, EnvEntry)
        return await self.room.see_to(run, made, entry)

    async def started(self) -> list[Run]:
        return await self.rooms.runs("team/ask")


@pytest.fixture
async def house() -> AsyncGenerator[House]:
    made = House()
    async with running(made.runner.run()):
        yield made


async def test_the_task_is_started_and_told_what_is_missing(house: House) -> None:
    said = await house.missing()
    (run,) = await house.started()
    assert said == f"its if_missing task 'team/ask' was started: run {run.id}"
    assert (run.parent_run_id, run.root_run_id, run.chain_depth) == ("r1", "r0", 1)
    payload = await house.rooms.store.get_payload(run.id)
    assert payload is not None
    assert payload.input == {"name": "TOKEN", "key": "token", "task": "team/t", "run": "r1"}


async def test_a_key_that_stays_missing_is_no_flood(house: House) -> None:
    await house.missing()
    (first,) = await house.started()
    assert first.id in await house.missing()
    await house.missing("other")
    assert len(await house.started()) == 2
    house.rooms.clock.advance(REST_S + 1)
    await until(lambda: not house.runner.busy)
    await house.missing()
    assert len(await house.started()) == 3


async def test_a_task_that_is_still_asking_is_not_started_again(house: House) -> None:
    house.runner.held.add("team/ask")
    await house.missing()
    await until(lambda: house.runner.holding == 1)
    house.rooms.clock.advance(REST_S * 10)
    assert "was started before" in await house.missing()
    assert len(await house.started()) == 1
    house.runner.release("team/ask")


async def test_what_cannot_be_started_is_said(house: House) -> None:
    assert "'nobody', which is not there" in await house.missing(task="nobody")
    assert "names the task itself" in await house.missing(task="t")
    deep = Run("r9", "t", RunStatus.RUNNING, Trigger.MCP, 0, chain_depth=MAX_CHAIN_DEPTH)
    assert "too deep" in await house.missing(run=deep)
    house.rooms.pause("team/ask")
    assert "could not be started: " in await house.missing()
    assert await house.started() == []
    house.rooms.pause("team/ask", False)
    assert "was started: run" in await house.missing(), "a failed try is no try"

"""What a run was started with is kept whole, and shown without what may be a secret."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.environment import Environment
from dicode_mcp.handed_down import HandedDown
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger
from dicode_mcp.runs.sensitive import HIDDEN
from dicode_mcp.service.inputs import MOST, RunInputs
from dicode_mcp.testing.inputs import plain_inputs
from dicode_mcp.testing.rooms import Rooms, make_task

VALUE = "handed-on-by-the-parent"
PARENT = make_task("parent", permissions={"env": [{"name": "TOKEN", "secret": "deploy"}]})
CHILD = make_task("child")
GIVEN = Payload(
    params={"city": "Oslo", "api_key": "abc123"},
    input={"deep": [{"Password": "hunter2"}], "url": "https://x.example/?token=abc"},
    request={"method": "POST", "headers": {"x-api-key": "k", "accept": "*/*"}},
)


class Env:
    def value_of(self, name: str) -> str | None:
        return VALUE if name == "deploy" else None


class House:
    def __init__(self) -> None:
        self.rooms = Rooms()
        self.rooms.put(PARENT, CHILD)
        self.handed = self.server()

    def server(self) -> HandedDown:
        """Give what a server that starts now has."""
        nobody: Any = None
        environment = Environment({}, [Env()], nobody, nobody)
        return HandedDown(environment, self.rooms.store, self.rooms.registry)

    async def run(
        self, run_id: str, task: Any, payload: Payload, trigger: Trigger, **before: Any
    ) -> Run:
        run = Run(run_id, task.id, RunStatus.QUEUED, trigger, 0, task_hash=task.digest, **before)
        await self.rooms.store.add_run(run, payload)
        await self.handed.resolve(run, task)
        return run

    async def shown(self, run: Run) -> dict[str, Any]:
        return await RunInputs(self.rooms.store, self.handed).shown(run)


async def test_fields_are_hidden_by_name_and_the_payload_stays_as_it_was() -> None:
    house = House()
    run = await house.run("r", CHILD, GIVEN, Trigger.MCP)
    shown = await house.shown(run)
    assert shown == {
        "params": {"city": "Oslo", "api_key": HIDDEN},
        "input": {"deep": [{"Password": HIDDEN}], "url": f"https://x.example/?token={HIDDEN}"},
        "request": {"method": "POST", "headers": {"x-api-key": HIDDEN, "accept": "*/*"}},
    }
    assert await house.rooms.store.get_payload("r") == GIVEN
    house.handed = house.server()
    assert await house.shown(run) == shown


async def test_a_value_of_the_parents_is_hidden_whatever_its_field_is_called() -> None:
    house = House()
    await house.run("p", PARENT, Payload(), Trigger.MCP)
    child = await house.run(
        "c", CHILD, Payload(params={"given": VALUE}), Trigger.SDK, parent_run_id="p"
    )
    assert await house.shown(child) == {"params": {"given": "[secret deploy]"}}
    replay = await house.run(
        "a", CHILD, Payload(params={"given": VALUE}), Trigger.REPLAY, replay_of="c"
    )
    assert VALUE not in str(await house.shown(replay))


async def test_after_a_restart_what_came_of_a_run_with_secrets_is_not_shown_at_all() -> None:
    house = House()
    await house.run("p", PARENT, Payload(), Trigger.MCP)
    given = Payload(params={"given": VALUE})
    child = await house.run("c", CHILD, given, Trigger.SDK, parent_run_id="p")
    again = await house.run("a", CHILD, given, Trigger.REPLAY, replay_of="c")
    house.handed = house.server()
    for run in (child, again):
        shown = await house.shown(run)
        assert list(shown) == ["withheld"]
        assert VALUE not in str(shown)


@pytest.mark.parametrize("how", ["no secret", "its result", "its own replay"])
async def test_after_a_restart_what_cannot_hold_a_secret_is_shown(how: str) -> None:
    house = House()
    parent = CHILD if how == "no secret" else PARENT
    await house.run("p", parent, Payload(params={"city": "Oslo"}), Trigger.MCP)
    trigger = {"no secret": Trigger.SDK, "its result": Trigger.CHAIN}.get(how, Trigger.REPLAY)
    before = {"replay_of": "p"} if trigger is Trigger.REPLAY else {"parent_run_id": "p"}
    run = await house.run("c", CHILD, Payload(input={"city": "Oslo"}), trigger, **before)
    house.handed = house.server()
    assert await house.shown(run) == {"input": {"city": "Oslo"}}


@pytest.mark.parametrize("change", ["changed", "gone"])
async def test_a_parent_whose_manifest_is_another_by_now_counts_as_one_with_secrets(
    change: str,
) -> None:
    house = House()
    await house.run("p", CHILD, Payload(), Trigger.MCP)
    other = make_task("other")
    house.rooms.put(PARENT, CHILD, other)
    run = await house.run("c", other, Payload(input="x"), Trigger.SDK, parent_run_id="p")
    house.handed = house.server()
    if change == "gone":
        house.rooms.remove("child")
    else:
        house.rooms.put(PARENT, make_task("child", "1"), other)
    assert list(await house.shown(run)) == ["withheld"]


async def test_what_was_not_kept_and_what_is_too_long_says_so() -> None:
    rooms = Rooms()
    inputs = plain_inputs(rooms.store)
    for run_id, payload in (("gone", Payload(dropped=True)), ("long", Payload(input="x" * 9999))):
        run = Run(run_id, "t", RunStatus.QUEUED, Trigger.MCP, 0)
        await rooms.store.add_run(run, payload)
        shown = await inputs.shown(run)
        if run_id == "gone":
            assert "run_inputs" in shown["withheld"]
        else:
            assert shown["input"].endswith("(10001 characters as JSON)")
            assert len(shown["input"]) < MOST + 100
    nothing = Run("nothing", "t", RunStatus.QUEUED, Trigger.MCP, 0)
    await rooms.store.add_run(nothing, Payload())
    assert await inputs.shown(nothing) == {}

"""Replays and children that a running task asks for: what it may, and whose family they join."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.queue import Claim
from dicode_mcp.runs.model import Payload, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.service.inside import Inside
from dicode_mcp.service.replays import Edit, repeated
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.rooms import End, InstantRunner, Rooms, make_task
from dicode_mcp.testing.secrets import secrets_for_inside
from dicode_mcp.testing.waiting import running

SUCCESS, FAILURE = RunStatus.SUCCESS, RunStatus.FAILURE
HELLO = make_task("hello", params={"who": {}, "n": {"type": "number"}})


def caller(**grants: Any) -> Task:
    return make_task("caller", permissions={"dicode": grants})


@asynccontextmanager
async def inside(
    *tasks: Task, ends: Callable[[Run], End] | None = None
) -> AsyncGenerator[tuple[Rooms, Inside, Claim]]:
    """Give a house whose task ``caller`` is on."""
    rooms = Rooms()
    rooms.put(*tasks)
    await rooms.queue.submit(RunRequest("caller", Trigger.MANUAL, root_run_id="root"))
    claim = await rooms.queue.claim(await rooms.dispatcher.next())
    assert claim is not None
    async with running(InstantRunner(rooms, ends).run()):
        yield (
            rooms,
            Inside(
                queue=rooms.queue,
                registry=rooms.registry,
                store=rooms.store,
                bus=rooms.bus,
                clock=rooms.clock,
                **secrets_for_inside(rooms),
            ),
            claim,
        )


async def one_run(rooms: Rooms) -> Run:
    request = RunRequest("hello", Trigger.MCP, params={"who": "Ann", "n": 2}, input="given")
    run = await rooms.queue.submit(request)
    return await rooms.queue.wait(run.id, 10)


async def test_a_task_repeats_a_run_within_its_own_family() -> None:
    async with inside(caller(runs_replay=True), HELLO) as (rooms, calls, me):
        was = await one_run(rooms)
        answer = await calls.replay(me.run, me.task, was.id, {})
        assert answer["task"] == "hello"
        assert answer["taskChanged"] is False
        again = await rooms.queue.wait(answer["runID"], 10)
        assert (again.trigger, again.replay_of) == (Trigger.REPLAY, was.id)
        assert (again.parent_run_id, again.root_run_id) == (me.run.id, "root")
        assert (again.actor, again.chain_depth) == ("task:caller", 1)
        kept = Payload({"who": "Ann", "n": 2}, "given")
        assert await rooms.store.get_payload(again.id) == kept


async def test_repeating_needs_its_grant_and_editing_the_task_besides() -> None:
    async with inside(caller(), HELLO) as (rooms, calls, me):
        was = await one_run(rooms)
        with pytest.raises(DicodeError, match="runs_replay") as refused:
            await calls.replay(me.run, me.task, was.id, {})
        assert refused.value.code is Code.FORBIDDEN
    async with inside(caller(runs_replay=True), HELLO) as (rooms, calls, me):
        was = await one_run(rooms)
        edits: tuple[dict[str, Any], ...] = ({"params": {"n": 1}}, {"params": {}, "input": None})
        for edited in edits:
            with pytest.raises(DicodeError, match=r"permissions\.dicode\.tasks") as refused:
                await calls.replay(me.run, me.task, was.id, **edited)
            assert refused.value.code is Code.FORBIDDEN
    async with inside(caller(runs_replay=True, tasks=["hello"]), HELLO) as (rooms, calls, me):
        was = await one_run(rooms)
        answer = await calls.replay(me.run, me.task, was.id, {"n": 9}, input=[1])
        payload = await rooms.store.get_payload(answer["runID"])
        assert payload == Payload({"who": "Ann", "n": 9}, [1])


async def test_an_unknown_run_is_told_as_such() -> None:
    async with inside(caller(runs_replay=True), HELLO) as (_, calls, me):
        with pytest.raises(DicodeError) as refused:
            await calls.replay(me.run, me.task, "nothing", {})
        assert refused.value.code is Code.RUN_NOT_FOUND


async def test_run_task_gives_the_end_of_the_series_and_children_share_the_root() -> None:
    flaky = make_task("flaky", retry={"attempts": 3, "backoff": 0})

    def ends(run: Run) -> End:
        return (SUCCESS, str(run.attempt)) if run.attempt == 3 else FAILURE

    async with inside(caller(tasks=["flaky"]), flaky, ends=ends) as (rooms, calls, me):
        answer = await calls.run_task(me.run, me.task, "flaky", {})
        assert (answer["status"], answer["returnValue"]) == ("success", 3)
        for run in await rooms.runs("flaky"):
            assert (run.parent_run_id, run.root_run_id) == (me.run.id, "root")


@pytest.mark.parametrize(
    ("trigger", "params"),
    [(Trigger.WEBHOOK, {"who": "Bob", "n": 2}), (Trigger.MCP, {"who": "Ann", "n": 2})],
)
def test_a_new_input_fills_params_again_where_the_old_one_did(
    trigger: Trigger, params: dict[str, Any]
) -> None:
    rooms = Rooms()
    rooms.put(HELLO)
    entry = rooms.registry.get("hello")
    assert entry is not None
    was = Run("r", "hello", SUCCESS, trigger, 0, task_hash=HELLO.digest)
    payload = Payload({"who": "Ann", "n": 2}, {"who": "Ann"}, {"method": "POST"})
    request, told = repeated(was, payload, entry, Edit({}, ({"who": "Bob", "other": 1},)))
    assert request.params == params
    assert request.request == {"method": "POST"}
    assert told == {"of": "r", "task_changed": False, "edited": ["input"]}

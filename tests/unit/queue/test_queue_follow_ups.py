"""What the queue writes after a run: chains, failure chains, and those that cannot start."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from dicode_mcp.protocols import RunQuery
from dicode_mcp.runs.follow_ups import MAX_CHAIN_DEPTH
from dicode_mcp.runs.model import Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.spec.model import FailureChain, Task
from dicode_mcp.testing.rooms import End, InstantRunner, Rooms, make_task
from dicode_mcp.testing.waiting import running, until

FAILURE, SUCCESS = RunStatus.FAILURE, RunStatus.SUCCESS


def follows(task_id: str, *sources: str, on: str = "success", **spec: Any) -> Task:
    return make_task(task_id, trigger={"chain": {"from": list(sources), "on": on}}, **spec)


@asynccontextmanager
async def house(
    *tasks: Task, ends: dict[str, End] | None = None, default: FailureChain | None = None
) -> AsyncGenerator[Rooms]:
    rooms = Rooms(on_failure_chain=default)
    rooms.put(*tasks)
    runner = InstantRunner(rooms, ends)
    async with running(runner.run()):
        yield rooms


async def start(rooms: Rooms, task_id: str, **request: Any) -> Run:
    """Run a task, and return when it and all that follows has ended."""
    run = await rooms.queue.submit(RunRequest(task_id, Trigger.MANUAL, **request))
    ended = await rooms.queue.wait(run.id, 10)
    await until(lambda: not rooms.dispatcher.waiting and not rooms.dispatcher.running)
    return ended


async def only(rooms: Rooms, task_id: str) -> Run:
    (run,) = await rooms.runs(task_id)
    stored = await rooms.store.get_run(run.id)
    assert stored is not None
    return stored


async def payload(rooms: Rooms, run: Run) -> tuple[dict[str, Any], Any]:
    stored = await rooms.store.get_payload(run.id)
    assert stored is not None
    return dict(stored.params), stored.input


async def test_a_chain_of_three_passes_its_values_on_and_knows_its_line() -> None:
    tasks = (make_task("a"), follows("b", "a"), follows("c", "b"))
    async with house(*tasks, ends={"a": (SUCCESS, "[1]"), "b": (SUCCESS, '"two"')}) as rooms:
        first = await start(rooms, "a")
        second, third = await only(rooms, "b"), await only(rooms, "c")
        assert (await payload(rooms, second))[1] == [1]
        assert (await payload(rooms, third))[1] == "two"
        assert (second.parent_run_id, third.parent_run_id) == (first.id, second.id)
        assert {second.root_run_id, third.root_run_id} == {first.id}
        assert (second.chain_depth, third.chain_depth) == (1, 2)
        family = await rooms.store.list_runs(RunQuery(root_run_id=first.id))
        assert len(family.items) == 3


async def test_one_end_starts_all_that_follow_it_and_no_other() -> None:
    tasks = (
        make_task("a"),
        follows("glad", "a"),
        follows("sad", "a", on="failure"),
        follows("both", "a", on="always"),
    )
    async with house(*tasks, ends={"a": FAILURE}) as rooms:
        await start(rooms, "a")
        assert not await rooms.runs("glad")
        for task_id in ("sad", "both"):
            run = await only(rooms, task_id)
            assert (await payload(rooms, run))[1] == {
                "status": "failure",
                "error": {"code": "script_error", "message": "ended as failure"},
                "returnValue": None,
            }


async def test_the_fields_of_a_value_fill_declared_params() -> None:
    down = follows("b", "a", params={"n": {"type": "number"}, "x": {"type": "string"}})
    async with house(make_task("a"), down, ends={"a": (SUCCESS, '{"n": "7", "y": 1}')}) as rooms:
        await start(rooms, "a")
        assert await payload(rooms, await only(rooms, "b")) == ({"n": 7}, {"n": "7", "y": 1})


async def test_a_value_that_does_not_fit_leaves_a_failed_run_that_says_why() -> None:
    down = follows("b", "a", params={"n": {"type": "number", "required": True}})
    async with house(make_task("a"), down, ends={"a": (SUCCESS, '{"n": "x"}')}) as rooms:
        await start(rooms, "a")
        run = await only(rooms, "b")
        assert (run.status, run.reason) == (FAILURE, Reason.INVALID_PARAMS)
        assert run.error is not None
        assert "'n'" in run.error.message


async def test_a_paused_follower_is_recorded_as_skipped() -> None:
    async with house(make_task("a"), follows("b", "a")) as rooms:
        rooms.pause("b")
        await start(rooms, "a")
        assert (await only(rooms, "b")).status is RunStatus.SKIPPED


async def test_a_failure_chain_gets_the_failed_run_and_its_own_params() -> None:
    alert = make_task(
        "alert",
        params={
            "taskID": {"type": "string"},
            "channel": {"type": "string"},
            "status": {"type": "string"},
        },
    )
    task = make_task(
        "a", on_failure_chain={"task": "alert", "params": {"channel": "ops", "extra": 1}}
    )
    async with house(task, alert, ends={"a": FAILURE}) as rooms:
        failed = await start(rooms, "a")
        run = await only(rooms, "alert")
        params, value = await payload(rooms, run)
        assert params == {"taskID": "a", "status": "failure", "channel": "ops"}
        assert value == {
            "taskID": "a",
            "runID": failed.id,
            "status": "failure",
            "output": None,
            "error": {"code": "script_error", "message": "ended as failure"},
            "_chain_depth": 1,
            "channel": "ops",
            "extra": 1,
        }
        assert run.parent_run_id == failed.id


async def test_the_default_failure_chain_is_for_tasks_that_say_nothing() -> None:
    default = FailureChain(task="alert")
    tasks = (
        make_task("silent"),
        make_task("off", on_failure_chain=""),
        make_task("own", on_failure_chain="mine"),
        make_task("alert"),
        make_task("mine"),
    )
    ends: dict[str, End] = {"silent": FAILURE, "off": FAILURE, "own": FAILURE}
    async with house(*tasks, ends=ends, default=default) as rooms:
        for task_id in ("silent", "off", "own"):
            await start(rooms, task_id)
        assert [run.actor for run in await rooms.runs("alert")] == ["failure-chain:silent"]
        assert [run.actor for run in await rooms.runs("mine")] == ["failure-chain:own"]


async def test_a_failure_chain_that_fails_starts_nothing_more() -> None:
    default = FailureChain(task="alert")
    tasks = (make_task("a"), make_task("alert", on_failure_chain="pager"), make_task("pager"))
    async with house(*tasks, ends={"a": FAILURE, "alert": FAILURE}, default=default) as rooms:
        await start(rooms, "a")
        assert len(await rooms.runs("alert")) == 1
        assert not await rooms.runs("pager")
        await start(rooms, "alert")
        assert len(await rooms.runs("pager")) == 1


async def test_a_failure_chain_that_is_not_there_does_not_spoil_the_end() -> None:
    async with house(make_task("a", on_failure_chain="ghost"), ends={"a": FAILURE}) as rooms:
        assert (await start(rooms, "a")).status is FAILURE
        assert len(await rooms.runs()) == 1


async def test_a_chain_that_never_ends_by_itself_is_stopped_and_says_so() -> None:
    """A handler that triggers its cause again: no cycle of chains, so only depth can tell."""
    tasks = (
        make_task("a", on_failure_chain="handler"),
        make_task("handler"),
        follows("again", "handler", on_failure_chain="handler"),
    )
    async with house(*tasks, ends={"a": FAILURE, "again": FAILURE}) as rooms:
        await start(rooms, "a")
        runs = await rooms.runs()
        assert max(run.chain_depth for run in runs) == MAX_CHAIN_DEPTH + 1
        refused = [run for run in runs if run.reason == Reason.CHAIN_DEPTH]
        assert [(run.status, run.chain_depth) for run in refused] == [
            (RunStatus.SKIPPED, MAX_CHAIN_DEPTH + 1)
        ]


async def test_a_cycle_starts_once_and_no_more() -> None:
    async with house(follows("a", "b"), follows("b", "a")) as rooms:
        await start(rooms, "a")
        assert len(await rooms.runs()) == 1


async def test_a_test_run_starts_nothing() -> None:
    async with house(make_task("a"), follows("b", "a")) as rooms:
        run = await rooms.queue.submit(RunRequest("a", Trigger.TEST))
        await rooms.queue.wait(run.id, 10)
        assert not await rooms.runs("b")


async def test_a_cancelled_run_starts_nothing() -> None:
    async with house(make_task("a", on_failure_chain="b"), follows("b", "a", on="always")) as rooms:
        rooms.dispatcher.close()
        run = await rooms.queue.submit(RunRequest("a", Trigger.MANUAL))
        await rooms.queue.cancel(run.id)
        assert not await rooms.runs("b")

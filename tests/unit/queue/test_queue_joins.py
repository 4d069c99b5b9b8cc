"""Tasks that wait for several others: when they start, with what, and when they say why not."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dicode_mcp.runs.model import Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.rooms import End, InstantRunner, Rooms, make_task
from dicode_mcp.testing.waiting import running, until

FAILURE, SUCCESS, SKIPPED = RunStatus.FAILURE, RunStatus.SUCCESS, RunStatus.SKIPPED


def follows(task_id: str, *sources: str, on: str = "success", **spec: Any) -> Task:
    return make_task(task_id, trigger={"chain": {"from": list(sources), "on": on}}, **spec)


def joins(task_id: str, *sources: str, on: str = "success", **spec: Any) -> Task:
    chain = {"from": list(sources), "on": on, "join": "all"}
    return make_task(task_id, trigger={"chain": chain}, **spec)


DIAMOND = (make_task("top"), follows("a", "top"), follows("b", "top"), joins("end", "a", "b"))


@asynccontextmanager
async def house(
    *tasks: Task, ends: Callable[[Run], End] | dict[str, End] | None = None, **rooms_with: Any
) -> AsyncGenerator[tuple[Rooms, InstantRunner]]:
    rooms = Rooms(**rooms_with)
    rooms.put(*tasks)
    runner = InstantRunner(rooms, ends)
    async with running(runner.run()):
        yield rooms, runner


async def quiet(rooms: Rooms) -> None:
    await until(lambda: not rooms.dispatcher.waiting and not rooms.dispatcher.running)


async def start(rooms: Rooms, task_id: str, **request: Any) -> Run:
    run = await rooms.queue.submit(RunRequest(task_id, Trigger.MANUAL, **request))
    last = await rooms.queue.wait_series(run.id, 10)
    await quiet(rooms)
    return last


async def input_of(rooms: Rooms, run: Run) -> Any:
    payload = await rooms.store.get_payload(run.id)
    assert payload is not None
    return payload.input


async def test_a_join_starts_once_with_the_values_of_all_by_their_ids() -> None:
    ends: dict[str, End] = {"a": (SUCCESS, "[1]"), "b": (SUCCESS, '{"k": 2}')}
    async with house(*DIAMOND, ends=ends) as (rooms, _):
        top = await start(rooms, "top")
        (end,) = await rooms.runs("end")
        assert await input_of(rooms, end) == {"a": [1], "b": {"k": 2}}
        assert (end.root_run_id, end.chain_depth, end.status) == (top.id, 2, SUCCESS)
        parents = [*await rooms.runs("a"), *await rooms.runs("b")]
        assert end.parent_run_id in {run.id for run in parents}
        assert end.idempotency_key == f"join:{end.parent_run_id}"


async def test_runs_under_different_roots_never_meet() -> None:
    async with house(*DIAMOND) as (rooms, runner):
        runner.held = {"b"}
        for _ in range(2):
            await rooms.queue.submit(RunRequest("top", Trigger.MANUAL))
        await until(lambda: runner.holding == 2)
        assert await rooms.runs("end") == []
    async with house(*DIAMOND) as (rooms, _):
        roots = {(await start(rooms, "top")).id, (await start(rooms, "top")).id}
        assert {run.root_run_id for run in await rooms.runs("end")} == roots


async def test_any_starts_after_each_of_its_sources() -> None:
    tasks = (*DIAMOND[:3], follows("end", "a", "b"))
    async with house(*tasks) as (rooms, _):
        await start(rooms, "top")
        assert len(await rooms.runs("end")) == 2


async def test_a_source_that_ended_the_other_way_leaves_a_skipped_run_that_says_so() -> None:
    async with house(*DIAMOND, ends={"b": FAILURE}) as (rooms, _):
        top = await start(rooms, "top")
        (end,) = await rooms.runs("end")
        (b,) = await rooms.runs("b")
        assert (end.status, end.reason, end.root_run_id) == (
            SKIPPED,
            Reason.JOIN_INCOMPLETE,
            top.id,
        )
        assert end.error is not None
        assert f"b ended as failure (run {b.id})" in end.error.message
        assert "a ended" not in end.error.message


async def test_a_source_that_never_ran_is_named_once_the_tree_has_ended() -> None:
    tasks = (
        make_task("top"),
        follows("a", "top"),
        follows("b", "a", on="failure"),
        joins("end", "top", "b", on="always"),
    )
    async with house(*tasks) as (rooms, _):
        await start(rooms, "top")
        (end,) = await rooms.runs("end")
        assert (end.status, end.reason) == (SKIPPED, Reason.JOIN_INCOMPLETE)
        assert end.error is not None
        assert "b did not run to an end" in end.error.message


async def test_nothing_is_said_while_a_run_under_the_root_may_still_complete_the_set() -> None:
    async with house(*DIAMOND) as (rooms, runner):
        runner.held = {"b"}
        await rooms.queue.submit(RunRequest("top", Trigger.MANUAL))
        await until(lambda: "b" in runner.on)
        await until(lambda: rooms.dispatcher.running == 1)
        assert await rooms.runs("end") == []
        runner.release("b")
        await quiet(rooms)
        assert [run.status for run in await rooms.runs("end")] == [SUCCESS]


async def test_a_join_on_always_gets_how_each_ended() -> None:
    tasks = (*DIAMOND[:3], joins("end", "a", "b", on="always"))
    async with house(*tasks, ends={"a": (SUCCESS, "1"), "b": FAILURE}) as (rooms, _):
        await start(rooms, "top")
        (end,) = await rooms.runs("end")
        given = await input_of(rooms, end)
        assert given["a"] == 1
        assert given["b"]["status"] == "failure"
        assert given["b"]["error"]["code"] == "script_error"


async def test_a_source_that_is_tried_again_counts_by_its_last_attempt() -> None:
    tasks = (
        make_task("top"),
        follows("a", "top", retry={"attempts": 3, "backoff": 0}),
        follows("b", "top"),
        joins("end", "a", "b"),
    )

    def ends(run: Run) -> End:
        return FAILURE if run.task_id == "a" and run.attempt < 3 else SUCCESS

    async with house(*tasks, ends=ends) as (rooms, _):
        await start(rooms, "top")
        assert [run.status for run in await rooms.runs("end")] == [SUCCESS]


async def test_each_complete_set_starts_it_once_with_the_newest_of_each() -> None:
    """``top`` starts a twice and b twice by the SDK: its children share its root."""
    grants = {"dicode": {"tasks": ["a", "b"]}}
    tasks = (
        make_task("top", permissions=grants),
        make_task("a", params={"n": {}}),
        make_task("b"),
        joins("end", "a", "b"),
    )
    values = iter(["1", "2", "3", "4"])

    def ends(run: Run) -> End:
        return (SUCCESS, next(values)) if run.task_id in "ab" else SUCCESS

    async with house(*tasks, ends=ends) as (rooms, runner):
        runner.held = {"top"}
        top = await rooms.queue.submit(RunRequest("top", Trigger.MANUAL))
        for task_id in ("a", "a", "b", "b"):
            child = RunRequest(task_id, Trigger.SDK, root_run_id=top.id, parent_run_id=top.id)
            run = await rooms.queue.submit(child)
            await rooms.queue.wait(run.id, 10)
        await until(lambda: "top" in runner.on)
        runner.release("top")
        await quiet(rooms)
        started, left = sorted(await rooms.runs("end"), key=lambda run: run.status is SKIPPED)
        assert await input_of(rooms, started) == {"a": 2, "b": 3}
        assert (left.status, left.reason) == (SKIPPED, Reason.JOIN_INCOMPLETE)


async def test_a_newer_failure_takes_the_place_of_an_older_success() -> None:
    grants = {"dicode": {"tasks": ["*"]}}
    tasks = (
        make_task("top", permissions=grants),
        make_task("a"),
        make_task("b"),
        joins("end", "a", "b"),
    )
    outcomes = iter([SUCCESS, FAILURE])

    def ends(run: Run) -> End:
        return next(outcomes) if run.task_id == "a" else SUCCESS

    async with house(*tasks, ends=ends) as (rooms, runner):
        runner.held = {"top"}
        top = await rooms.queue.submit(RunRequest("top", Trigger.MANUAL))
        for task_id in ("a", "a", "b"):
            child = RunRequest(task_id, Trigger.SDK, root_run_id=top.id, parent_run_id=top.id)
            await rooms.queue.wait((await rooms.queue.submit(child)).id, 10)
        assert await rooms.runs("end") == []
        await until(lambda: "top" in runner.on)
        runner.release("top")
        await quiet(rooms)
        assert [run.status for run in await rooms.runs("end")] == [SKIPPED]


async def test_a_join_that_is_paused_or_does_not_fit_its_input_is_seen() -> None:
    required = {"a": {"type": "number", "required": True}}
    for change in ("pause", "params"):
        spec: dict[str, Any] = {"params": required} if change == "params" else {}
        tasks = (*DIAMOND[:3], joins("end", "a", "b", **spec))
        async with house(*tasks, ends={"a": (SUCCESS, '"x"')}) as (rooms, _):
            if change == "pause":
                rooms.pause("end")
            await start(rooms, "top")
            (end,) = await rooms.runs("end")
            expected = (
                (SKIPPED, "task_paused") if change == "pause" else (FAILURE, "invalid_params")
            )
            assert (end.status, end.reason) == expected


async def test_joins_of_joins_complete_and_are_given_up_together() -> None:
    tasks = (*DIAMOND, follows("c", "top"), joins("last", "end", "c"))
    async with house(*tasks) as (rooms, _):
        await start(rooms, "top")
        (last,) = await rooms.runs("last")
        assert (last.status, last.chain_depth) == (SUCCESS, 3)
    async with house(*tasks, ends={"a": FAILURE}) as (rooms, _):
        await start(rooms, "top")
        assert [run.status for run in await rooms.runs("end")] == [SKIPPED]
        assert [run.status for run in await rooms.runs("last")] == [SKIPPED]


async def test_a_task_that_is_gone_when_the_tree_ends_leaves_nothing_behind() -> None:
    async with house(*DIAMOND) as (rooms, runner):
        runner.held = {"b"}
        await rooms.queue.submit(RunRequest("top", Trigger.MANUAL))
        await until(lambda: "b" in runner.on)
        rooms.remove("end")
        runner.release("b", FAILURE)
        await quiet(rooms)
        assert await rooms.runs("end") == []


async def test_test_runs_feed_no_join() -> None:
    async with house(*DIAMOND) as (rooms, _):
        for task_id in ("a", "b"):
            request = RunRequest(task_id, Trigger.TEST, root_run_id="shared")
            run = await rooms.queue.submit(request)
            await rooms.queue.wait(run.id, 10)
        await quiet(rooms)
        assert await rooms.runs("end") == []


async def test_two_sources_that_end_at_once_start_the_join_once() -> None:
    sources = [f"s{n}" for n in range(12)]
    tasks = (
        make_task("top"),
        *(follows(source, "top") for source in sources),
        joins("end", *sources),
    )
    async with house(*tasks) as (rooms, runner):
        runner.held = set(sources)
        await rooms.queue.submit(RunRequest("top", Trigger.MANUAL))
        await until(lambda: runner.holding == len(sources))
        for source in sources:
            runner.release(source)
        await quiet(rooms)
        assert len(await rooms.runs("end")) == 1

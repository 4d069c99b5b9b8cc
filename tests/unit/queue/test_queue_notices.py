"""What the queue writes after a run so that people are told: runs of the task that delivers."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.registry import Entry
from dicode_mcp.runs.model import Run, RunRequest, RunStatus, Trigger
from dicode_mcp.runs.notices import NoticeRules
from dicode_mcp.spec.model import FailureChain, Task
from dicode_mcp.telling import NotifySettings
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.rooms import SOURCE, End, InstantRunner, Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.triggers.notices import NoticeConditions

FAILURE, SUCCESS = RunStatus.FAILURE, RunStatus.SUCCESS
SETTINGS = NotifySettings("notify")
Ends = dict[str, End] | Callable[[Run], End]


class Told(Rooms):
    """Rooms, and what people were told in them."""

    def __init__(self, **rooms: Any) -> None:
        super().__init__(**rooms)
        self.conditions = NoticeConditions(self.notices, self.registry, self.store, self.bus)

    async def inputs(self) -> list[Any]:
        """Give the inputs of the delivering task, oldest first."""
        found: list[Any] = []
        for run in await self.runs("notify"):
            payload = await self.store.get_payload(run.id)
            assert payload is not None
            found.append(payload.input)
        return found

    async def events(self) -> list[str]:
        return [given["event"] for given in await self.inputs()]

    async def start(self, task_id: str, **request: Any) -> Run:
        """Run a task, and return when it and all that follows has ended."""
        trigger = request.pop("trigger", Trigger.MANUAL)
        run = await self.queue.submit(RunRequest(task_id, trigger, **request))
        ended = await self.queue.wait(run.id, 10)
        await self.quiet()
        return ended

    async def quiet(self) -> None:
        await until(lambda: not self.dispatcher.waiting and not self.dispatcher.running)

    async def notification(self, task_id: str) -> Any:
        """Give the condition on notifications of a task, as the room that keeps it finds it."""
        await self.conditions.look()
        return self.condition(task_id, ConditionType.NOTIFICATION_FAILING)


@asynccontextmanager
async def house(
    *tasks: Task, ends: Ends | None = None, settings: NotifySettings = SETTINGS, **rooms: Any
) -> AsyncGenerator[Told]:
    told = Told(notify=settings, **rooms)
    told.put(*tasks)
    async with running(InstantRunner(told, ends).run()):
        yield told


async def test_a_failure_starts_the_task_that_delivers_beside_the_run_it_is_about() -> None:
    async with house(make_task("up"), make_task("notify"), ends={"up": FAILURE}) as rooms:
        up = await rooms.start("up")
        (run,) = await rooms.runs("notify")
        assert (run.trigger, run.actor) == (Trigger.NOTIFY, "notify:up")
        assert (run.parent_run_id, run.root_run_id, run.status) == (up.id, up.id, SUCCESS)
        assert run.idempotency_key == f"notify:{up.id}"
        (given,) = await rooms.inputs()
        assert given["task"] == {"id": "up", "name": "up"}
        assert (given["event"], given["run"]["run_id"]) == ("first_failure", up.id)


async def test_a_task_decides_for_itself_what_is_told_of_it() -> None:
    tasks = (
        make_task("silent", notify={"on_failure": False}),
        make_task("proud", notify={"on_success": True}),
        make_task("plain"),
        make_task("notify"),
    )
    async with house(*tasks, ends={"silent": FAILURE}) as rooms:
        for task_id in ("silent", "proud", "plain"):
            await rooms.start(task_id)
        assert [given["text"].split()[0] for given in await rooms.inputs()] == ["proud"]


async def test_runs_that_fail_at_once_are_told_once() -> None:
    async with house(make_task("up"), make_task("notify"), ends={"up": FAILURE}) as rooms:
        requests = [RunRequest("up", Trigger.API) for _ in range(50)]
        await asyncio.gather(*(rooms.queue.submit(request) for request in requests))
        await rooms.quiet()
        assert await rooms.events() == ["first_failure"]


async def test_failing_and_working_again_is_told_across_a_restart() -> None:
    store, clock = MemoryStore(), FakeClock()
    ends: dict[str, End] = {"up": FAILURE}
    for status in (FAILURE, FAILURE, SUCCESS, SUCCESS):
        ends["up"] = status
        tasks = (make_task("up"), make_task("notify"))
        async with house(*tasks, ends=ends, store=store, clock=clock) as rooms:
            await rooms.start("up")
            events = await rooms.events()
            clock.advance(1)
    assert events == ["first_failure", "recovery"]


async def test_a_failing_channel_is_visible_and_fails_and_tells_nothing_else() -> None:
    ends: dict[str, End] = {"up": FAILURE, "notify": FAILURE}
    async with house(make_task("up"), make_task("notify"), ends=ends) as rooms:
        await rooms.start("up")
        (run,) = await rooms.runs("notify")
        assert run.status is FAILURE
        for task_id in ("up", "notify"):
            condition = await rooms.notification(task_id)
            assert (condition.status, condition.reason) == (True, "DeliveryFailed")
            assert run.id in condition.message
            assert "ended as failure" in condition.message
        ends["notify"] = SUCCESS
        rooms.clock.advance(3600)
        await rooms.start("up")
        assert await rooms.events() == ["first_failure", "first_failure"]
        assert await rooms.notification("up") is None
        assert await rooms.notification("notify") is None


async def test_what_a_notice_or_a_failure_chain_starts_is_never_told() -> None:
    tasks = (
        make_task("up", on_failure_chain="alert"),
        make_task("alert"),
        make_task("notify"),
        make_task("after-notify", trigger={"chain": {"from": "notify", "on": "always"}}),
    )

    def end(run: Run) -> End:
        return FAILURE

    async with house(*tasks, ends=end) as rooms:
        await rooms.start("up")
        assert [len(await rooms.runs(task.id)) for task in tasks] == [1, 1, 1, 1]
        actors = {run.task_id: run.actor for run in await rooms.runs()}
        assert actors["after-notify"] == "notify:up"


async def test_the_delivering_task_is_not_told_of_through_itself() -> None:
    async with house(make_task("notify"), ends={"notify": FAILURE}) as rooms:
        await rooms.start("notify")
        assert len(await rooms.runs("notify")) == 1


async def test_a_failure_chain_still_follows_a_notice_that_did_not_get_through() -> None:
    ends: dict[str, End] = {"up": FAILURE, "notify": FAILURE}
    tasks = (make_task("up"), make_task("notify"), make_task("alert"))
    chain = FailureChain(task="alert")
    async with house(*tasks, ends=ends, on_failure_chain=chain) as rooms:
        await rooms.start("up")
        assert len(await rooms.runs("alert")) == 2


async def test_only_the_last_attempt_is_told() -> None:
    ends: dict[str, End] = {"up": FAILURE}
    retry = {"attempts": 3, "backoff": 0}
    async with house(make_task("up", retry=retry), make_task("notify"), ends=ends) as rooms:
        await rooms.start("up")
        await until(lambda: not rooms.dispatcher.waiting)
        attempts = sorted(await rooms.runs("up"), key=lambda run: run.attempt)
        assert [run.attempt for run in attempts] == [1, 2, 3]
        assert await rooms.events() == ["first_failure"]
        (given,) = await rooms.inputs()
        assert (given["run"]["attempt"], given["count"]) == (3, 1)
        assert given["run"]["run_id"] == attempts[-1].id


async def test_an_attempt_that_works_in_the_end_is_no_failure_to_tell() -> None:
    def end(run: Run) -> End:
        return FAILURE if run.task_id == "up" and run.attempt < 3 else SUCCESS

    retry = {"attempts": 3, "backoff": 0}
    async with house(make_task("up", retry=retry), make_task("notify"), ends=end) as rooms:
        await rooms.start("up")
        assert len(await rooms.runs("up")) == 3
        assert await rooms.inputs() == []


async def test_a_channel_that_works_at_its_second_attempt_is_not_failing() -> None:
    def end(run: Run) -> End:
        return FAILURE if run.task_id == "up" or run.attempt < 2 else SUCCESS

    retry = {"attempts": 2, "backoff": 0}
    async with house(make_task("up"), make_task("notify", retry=retry), ends=end) as rooms:
        await rooms.start("up")
        ends = {run.attempt: run.status for run in await rooms.runs("notify")}
        assert ends == {1: FAILURE, 2: SUCCESS}
        assert await rooms.store.undelivered_notices() == {}


async def test_a_missing_task_that_delivers_is_told_where_it_was_asked_for() -> None:
    asks = make_task("asks", notify={"on_failure": True})
    async with house(asks, make_task("plain"), ends={"asks": FAILURE}) as rooms:
        await rooms.start("asks")
        (run,) = await rooms.runs("notify")
        assert (run.status, run.reason) == (FAILURE, "task_gone")
        condition = await rooms.notification("asks")
        assert condition.reason == "TaskMissing"
        assert "no task 'notify'" in condition.message
        assert await rooms.notification("plain") is None
        rooms.put(make_task("notify"))
        assert (await rooms.notification("asks")).reason == "DeliveryFailed"


async def test_without_a_task_that_delivers_nothing_is_sent_and_who_asked_is_told() -> None:
    tasks = (make_task("asks", notify={"on_failure": True}), make_task("plain"))
    async with house(*tasks, ends={"asks": FAILURE}, settings=NotifySettings()) as rooms:
        await rooms.start("asks")
        assert len(await rooms.runs()) == 1
        condition = await rooms.notification("asks")
        assert condition.reason == "NotConfigured"
        assert "notifications: {task: bundled/notify}" in condition.message
        assert await rooms.notification("plain") is None


async def test_a_version_that_waits_for_a_human_is_not_started_to_deliver() -> None:
    async with house(make_task("up"), ends={"up": FAILURE}) as rooms:
        waiting = make_task("notify", "1")
        held = (Condition(ConditionType.READY, False, "PendingApproval"),)
        entry = Entry("notify", SOURCE, Path("/nowhere"), None, held, waiting=waiting)
        rooms.registry.apply(SOURCE, put=[entry])
        await rooms.start("up")
        (run,) = await rooms.runs("notify")
        assert (run.status, run.started_at_ms) == (FAILURE, None)
        assert run.error is not None
        assert "not approved" in run.error.message
        assert (await rooms.notification("up")).reason == "DeliveryFailed"


async def test_a_pause_of_the_task_that_delivers_is_visible() -> None:
    asks = make_task("up", notify={"on_failure": True})
    async with house(asks, make_task("notify"), ends={"up": FAILURE}) as rooms:
        rooms.pause("notify")
        await rooms.start("up")
        (run,) = await rooms.runs("notify")
        assert run.status is RunStatus.SKIPPED
        assert (await rooms.notification("up")).reason == "TaskPaused"


async def test_tests_and_agents_are_not_told_of() -> None:
    async with house(make_task("up"), make_task("notify"), ends={"up": FAILURE}) as rooms:
        await rooms.start("up", trigger=Trigger.TEST)
        assert await rooms.inputs() == []


async def test_an_address_for_people_is_in_the_notice_when_the_server_has_one() -> None:
    settings = NotifySettings("notify", NoticeRules(), "https://dicode.example/")
    tasks = (make_task("up"), make_task("notify"))
    async with house(*tasks, ends={"up": FAILURE}, settings=settings) as rooms:
        up = await rooms.start("up")
        (given,) = await rooms.inputs()
        assert given["url"] == f"https://dicode.example/runs/{up.id}"


async def test_parameters_of_the_delivering_task_are_filled_from_the_notice() -> None:
    notify = make_task("notify", params={"event": {}, "text": {}, "channels": {"default": "ntfy"}})
    async with house(make_task("up"), notify, ends={"up": FAILURE}) as rooms:
        await rooms.start("up")
        (run,) = await rooms.runs("notify")
        payload = await rooms.store.get_payload(run.id)
        assert payload is not None
        assert payload.params == {
            "event": "first_failure",
            "text": "up failed: ended as failure",
            "channels": "ntfy",
        }

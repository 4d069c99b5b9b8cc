"""Daemons on real rooms: one run each, restarted, replaced, stopped."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from dicode_mcp.conditions import ConditionType
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import Payload, Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.triggers.daemons import DaemonTrigger

FAILURE, SUCCESS, CANCELLED = RunStatus.FAILURE, RunStatus.SUCCESS, RunStatus.CANCELLED
RUNNING = RunStatus.RUNNING


def daemon(task_id: str = "d", digest: str = "0", **options: object) -> Task:
    return make_task(task_id, digest, trigger={"daemon": True, **options})


@dataclass
class Shop:
    rooms: Rooms
    runner: InstantRunner
    daemons: DaemonTrigger

    async def is_on(self, task_id: str = "d", other_than: str | None = None) -> str:
        await until(lambda: self.runner.on.get(task_id, other_than) != other_than)
        # Ids sort by time: the next run is a moment later.
        self.rooms.clock.advance(0.001)
        return self.runner.on[task_id]

    async def statuses(self, task_id: str = "d") -> list[RunStatus]:
        return [run.status for run in await self.rooms.runs(task_id)]

    async def ended(self, number: int, task_id: str = "d") -> None:
        """Wait until so many runs have ended."""
        async with asyncio.timeout(20):
            # The store tells no one.
            while sum(status.ended for status in await self.statuses(task_id)) < number:  # noqa: ASYNC110
                await asyncio.sleep(0)


@asynccontextmanager
async def open_shop(
    *tasks: Task,
    store: Store | None = None,
    clock: FakeClock | None = None,
    held: tuple[str, ...] = ("d",),
    ends: dict[str, RunStatus] | None = None,
    slots: int = 1,
) -> AsyncGenerator[Shop]:
    rooms = Rooms(store, clock, slots=slots)
    rooms.put(*tasks)
    await rooms.queue.recover()
    runner = InstantRunner(rooms, dict(ends or {}))
    runner.held.update(held)
    daemons = DaemonTrigger(rooms.queue, rooms.registry, rooms.bus, rooms.clock)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(runner.run()))
        await stack.enter_async_context(running(daemons.run()))
        yield Shop(rooms, runner, daemons)


async def test_a_daemon_is_on_from_the_start_and_holds_no_slot() -> None:
    async with open_shop(daemon(), make_task("job"), slots=1) as shop:
        run_id = await shop.is_on()
        run = await shop.rooms.store.get_run(run_id)
        assert run is not None
        assert (run.trigger, run.actor) == (Trigger.DAEMON, "daemon")
        assert shop.rooms.dispatcher.running == 0


async def test_many_daemons_leave_the_only_slot_to_others() -> None:
    tasks = [daemon(f"d{n}") for n in range(5)]
    held = tuple(task.id for task in tasks)
    async with open_shop(*tasks, make_task("job"), held=held, slots=1) as shop:
        for task_id in held:
            await shop.is_on(task_id)
        run = await shop.rooms.queue.submit(RunRequest("job", Trigger.MANUAL))
        done = await shop.rooms.queue.wait(run.id, 10)
        assert done.status is SUCCESS


async def test_a_daemon_that_crashes_is_started_again_after_a_second() -> None:
    async with open_shop(daemon()) as shop:
        first = await shop.is_on()
        shop.rooms.clock.advance(70)
        shop.runner.release("d", FAILURE)
        await until(lambda: shop.rooms.clock.next_wake() == 1)
        assert await shop.statuses() == [FAILURE]
        shop.rooms.clock.advance(1)
        assert await shop.is_on(other_than=first) != first
        assert await shop.statuses() == [FAILURE, RUNNING]


async def test_a_daemon_that_ends_at_once_is_shown_as_crash_looping_with_its_last_error() -> None:
    async with open_shop(daemon(), held=(), ends={"d": FAILURE}) as shop:
        for number, pause in enumerate((1, 2, 4, 8), 1):
            await shop.ended(number)
            await until(lambda pause=pause: shop.rooms.clock.next_wake() == pause)
            shop.rooms.clock.advance(pause)
        shown = shop.rooms.condition("d", ConditionType.CRASH_LOOPING)
        assert shown is not None
        assert shown.status
        assert "ended as failure" in shown.message


async def test_a_crash_loop_is_cleared_by_a_healthy_minute() -> None:
    async with open_shop(daemon(), held=(), ends={"d": FAILURE}) as shop:
        await shop.ended(1)
        await until(lambda: shop.rooms.clock.next_wake() == 1)
        shop.rooms.clock.advance(1)
        await until(lambda: shop.rooms.condition("d", ConditionType.CRASH_LOOPING))
        shop.runner.held.add("d")
        await until(lambda: shop.rooms.clock.next_wake() == 2)
        shop.rooms.clock.advance(2)
        await shop.is_on()
        assert shop.rooms.condition("d", ConditionType.CRASH_LOOPING) is not None
        await until(lambda: (shop.rooms.clock.next_wake() or 0) > 59)
        shop.rooms.clock.advance(60)
        await until(lambda: shop.rooms.condition("d", ConditionType.CRASH_LOOPING) is None)


async def test_restart_never_leaves_it_ended() -> None:
    async with open_shop(daemon(restart="never")) as shop:
        await shop.is_on()
        shop.runner.release("d", FAILURE)
        await shop.ended(1)
        await shop.rooms.clock.asleep()
        assert shop.rooms.clock.next_wake() is None
        assert await shop.statuses() == [FAILURE]


async def test_a_new_version_stops_the_old_run_before_it_starts() -> None:
    async with open_shop(daemon()) as shop:
        first = await shop.is_on()
        shop.rooms.put(daemon("d", "1"))
        second = await shop.is_on(other_than=first)
        old, new = await shop.rooms.runs("d")
        assert (old.id, old.status, old.reason) == (first, CANCELLED, Reason.REPLACED)
        assert (new.id, new.task_hash) == (second, "1" * 64)
        assert shop.runner.most_on["d"] == 1


async def test_changes_in_quick_succession_end_in_one_run_of_the_last() -> None:
    async with open_shop(daemon()) as shop:
        await shop.is_on()
        for digest in "123456789":
            shop.rooms.put(daemon("d", digest))
            await asyncio.sleep(0)

        def last_is_on() -> bool:
            entry = shop.rooms.registry.get("d")
            return entry is not None and "d" in shop.runner.on

        await until(last_is_on)
        while True:
            run = await shop.rooms.store.get_run(shop.runner.on.get("d", ""))
            if run is not None and run.task_hash == "9" * 64:
                break
            await asyncio.sleep(0)
        assert shop.runner.most_on["d"] == 1


async def test_a_daemon_that_is_removed_or_paused_is_stopped() -> None:
    async with open_shop(daemon("a"), daemon("b"), held=("a", "b")) as shop:
        await shop.is_on("a")
        await shop.is_on("b")
        shop.rooms.remove("a")
        shop.rooms.pause("b")
        await until(lambda: not shop.runner.on)
        assert await shop.statuses("a") == [CANCELLED]
        assert await shop.statuses("b") == [CANCELLED]
        shop.rooms.pause("b", on=False)
        await shop.is_on("b")
        assert await shop.statuses("b") == [CANCELLED, RUNNING]


async def test_a_task_that_becomes_a_daemon_is_started_and_one_that_ceases_is_stopped() -> None:
    async with open_shop(make_task("d")) as shop:
        shop.rooms.put(daemon("d", "1"))
        await shop.is_on()
        shop.rooms.put(make_task("d", "2"))
        await until(lambda: not shop.runner.on)
        assert await shop.statuses() == [CANCELLED]


async def test_closing_ends_every_daemon_as_shutdown_and_starts_none_again() -> None:
    async with open_shop(daemon("a"), daemon("b"), held=("a", "b")) as shop:
        await shop.is_on("a")
        await shop.is_on("b")
        shop.daemons.close()
        await until(lambda: not shop.runner.on)
        shop.rooms.put(daemon("a", "1"), daemon("c"))
        shop.rooms.clock.advance(300)
        for _ in range(50):
            await asyncio.sleep(0)
        for task_id in ("a", "b"):
            (run,) = await shop.rooms.runs(task_id)
            assert (run.status, run.reason) == (CANCELLED, Reason.SHUTDOWN)
        assert await shop.rooms.runs("c") == []


async def test_after_a_crash_of_the_server_a_daemon_has_one_run_again() -> None:
    store, clock = MemoryStore(), FakeClock()
    on = Run("on", "d", RunStatus.QUEUED, Trigger.DAEMON, clock.now_ms())
    await store.add_run(on, Payload())
    await store.start_run("on", now_ms=clock.now_ms(), task_hash="0", revision=None)
    waiting = Run("waiting", "d", RunStatus.QUEUED, Trigger.DAEMON, clock.now_ms())
    await store.add_run(waiting, Payload())
    async with open_shop(daemon(), store=store, clock=clock) as shop:
        await shop.is_on()
        runs = {run.id: run for run in await shop.rooms.runs("d")}
        assert runs.pop("on").status is RunStatus.LOST
        left = runs.pop("waiting")
        assert (left.status, left.reason) == (CANCELLED, Reason.SHUTDOWN)
        (anew,) = runs.values()
        assert anew.status is RUNNING
        assert shop.runner.most_on["d"] == 1


async def test_a_store_in_trouble_delays_a_daemon_and_does_not_lose_it() -> None:
    store = MemoryStore()
    store.failure = DicodeError(Code.STORAGE_FULL, "the disk is full", retry=Retry.AFTER)
    async with open_shop(daemon(), store=store) as shop:
        await until(lambda: shop.rooms.clock.next_wake() == 1)
        shop.rooms.clock.advance(1)
        await until(lambda: shop.rooms.condition("d", ConditionType.CRASH_LOOPING))
        store.failure = None
        await until(lambda: shop.rooms.clock.next_wake() == 2)
        shop.rooms.clock.advance(2)
        await shop.is_on()


async def test_a_daemon_that_is_cancelled_by_hand_comes_back() -> None:
    async with open_shop(daemon()) as shop:
        first = await shop.is_on()
        await shop.rooms.queue.cancel(first)
        await until(lambda: shop.rooms.clock.next_wake() == 1)
        shop.rooms.clock.advance(1)
        await shop.is_on(other_than=first)
        assert await shop.statuses() == [CANCELLED, RUNNING]

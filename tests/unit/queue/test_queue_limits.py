"""Concurrency of tasks on the queue: skip, replace, queue, deadlocks, restarts, reloads."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus
from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import Outcome, Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.service.inside import Inside
from dicode_mcp.spec.model import Task
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.faults import Fault, FaultyStore
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.secrets import secrets_for_inside
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running, until

REQUEST = RunRequest("t", Trigger.API)


def limited(task_id: str = "t", /, **fields: Any) -> Task:
    concurrency = {k: fields.pop(k) for k in ("limit", "key", "overlap") if k in fields}
    return make_task(task_id, concurrency=concurrency, **fields)


class Shop:
    """Rooms and a runner that holds every run of ``t`` until it is released."""

    def __init__(self, rooms: Rooms, runner: InstantRunner) -> None:
        self.rooms = rooms
        self.runner = runner

    async def submit(self, task_id: str = "t", **fields: Any) -> Run:
        self.rooms.clock.advance(0.001)
        run = await self.rooms.queue.submit(RunRequest(task_id, Trigger.API, **fields))
        await self.settled()
        return run

    async def settled(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def statuses(self, task_id: str = "t") -> list[tuple[str, str | None]]:
        await self.settled()
        return [(run.status.value, run.reason) for run in await self.rooms.runs(task_id)]

    async def release(self, task_id: str = "t") -> None:
        self.runner.release(task_id)
        await self.settled()


@asynccontextmanager
async def open_shop(
    *tasks: Task, store: Store | None = None, held: tuple[str, ...] = ("t",), slots: int = 100
) -> AsyncGenerator[Shop]:
    rooms = Rooms(store, slots=slots)
    rooms.put(*tasks)
    runner = InstantRunner(rooms)
    runner.held.update(held)
    await rooms.queue.recover()
    async with running(runner.run()), running(rooms.queue.follow_limits()):
        shop = Shop(rooms, runner)
        await shop.settled()
        yield shop


ON, WAITS, DONE = ("running", None), ("queued", None), ("success", None)
SKIPPED, REPLACED = ("skipped", "overlap"), ("cancelled", "replaced")


async def test_queued_runs_start_one_after_the_other() -> None:
    async with open_shop(limited(overlap="queue")) as shop:
        for _ in range(3):
            await shop.submit()
        assert await shop.statuses() == [ON, WAITS, WAITS]
        await shop.release()
        assert await shop.statuses() == [DONE, ON, WAITS]
        assert shop.runner.most_on["t"] == 1


async def test_a_skipped_run_is_recorded_and_names_the_run_that_is_on() -> None:
    async with open_shop(limited(overlap="skip")) as shop:
        first = await shop.submit()
        second = await shop.submit()
        assert (second.status, second.reason) == (RunStatus.SKIPPED, Reason.OVERLAP)
        assert second.error is not None
        assert first.id in second.error.message
        assert "concurrency.overlap" in (second.error.hint or "")
        await shop.release()
        third = await shop.submit()
        assert third.status is RunStatus.QUEUED


async def test_a_limit_without_an_overlap_makes_runs_wait() -> None:
    async with open_shop(limited(limit=2)) as shop:
        for _ in range(3):
            await shop.submit()
        assert await shop.statuses() == [ON, ON, WAITS]


async def test_a_key_counts_per_value() -> None:
    task = limited(overlap="skip", key="${params.repo}", params={"repo": "none"})
    async with open_shop(task) as shop:
        seen: list[str] = []
        for repo in ("a", "b", "a"):
            seen.append((await shop.submit(params={"repo": repo})).status.value)
        assert seen == ["queued", "queued", "skipped"]


async def test_the_newest_run_replaces_the_one_that_is_on_and_starts_after_its_end() -> None:
    async with open_shop(limited(overlap="replace")) as shop:
        first = await shop.submit()
        second = await shop.submit()
        assert await shop.statuses() == [REPLACED, ON]
        assert shop.runner.most_on["t"] == 1
        ended = await shop.rooms.store.get_run(first.id)
        begun = await shop.rooms.store.get_run(second.id)
        assert ended is not None
        assert begun is not None
        assert (ended.finished_at_ms or 0) <= (begun.started_at_ms or 0)


async def test_runs_that_wait_for_a_slot_are_replaced_too() -> None:
    async with open_shop(limited(overlap="replace", limit=2), make_task("big"), slots=1) as shop:
        shop.runner.held.add("big")
        await shop.submit("big")
        for _ in range(4):
            await shop.submit()
        assert await shop.statuses() == [REPLACED, REPLACED, WAITS, WAITS]


async def test_replacing_follows_the_order_of_coming_also_when_the_clock_is_put_back() -> None:
    async with open_shop(limited(overlap="replace")) as shop:
        first = await shop.submit()
        shop.rooms.clock.set_wall(shop.rooms.clock.now_ms() - 3_600_000)
        await shop.submit()
        stored = await shop.rooms.store.get_run(first.id)
        assert stored is not None
        assert (stored.status, stored.reason) == (RunStatus.CANCELLED, Reason.REPLACED)


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
async def test_many_submits_at_the_same_moment_keep_to_the_limit(
    overlap: str, tmp_path: Path
) -> None:
    async with SqliteStore.open(tmp_path, SystemClock(), ballast_bytes=0) as store:
        async with open_shop(limited(limit=2, overlap=overlap), store=store) as shop:
            queue = shop.rooms.queue
            await asyncio.gather(*(queue.submit(REQUEST) for _ in range(20)))
            await until(lambda: shop.runner.holding == 2)
            await shop.settled()
            counted = [run.status.value for run in await shop.rooms.runs("t")]
            wanted = {
                "skip": {"running": 2, "skipped": 18},
                "queue": {"running": 2, "queued": 18},
                "replace": {"running": 2, "cancelled": 18},
            }
            await until(lambda: shop.runner.most_on["t"] <= 2)
            assert {status: counted.count(status) for status in set(counted)} == wanted[overlap]
            assert shop.runner.most_on["t"] == 2


async def test_an_idempotency_key_is_one_run_whatever_the_overlap() -> None:
    for overlap in ("skip", "replace"):
        async with open_shop(limited(overlap=overlap)) as shop:
            request = replace(REQUEST, idempotency_key="k")
            runs = await asyncio.gather(*(shop.rooms.queue.submit(request) for _ in range(5)))
            assert len({run.id for run in runs}) == 1
            assert await shop.statuses() == [ON]
            again = await shop.rooms.queue.submit(request)
            assert again.id == runs[0].id
            assert await shop.statuses() == [ON]


async def test_a_submit_that_turns_out_to_be_an_earlier_run_takes_no_place_from_another() -> None:
    async with open_shop(limited(overlap="skip"), held=()) as shop:
        used = replace(REQUEST, idempotency_key="k")
        earlier = await shop.submit(idempotency_key="k")
        await until(lambda: not shop.rooms.dispatcher.running)
        same, other = await asyncio.gather(
            shop.rooms.queue.submit(used), shop.rooms.queue.submit(REQUEST)
        )
        assert same.id == earlier.id
        assert other.status is RunStatus.QUEUED


async def test_a_skipped_run_keeps_its_idempotency_key_and_its_slot() -> None:
    async with open_shop(limited(overlap="skip")) as shop:
        await shop.submit()
        skipped = await shop.submit(idempotency_key="k", slot_ms=60_000)
        await shop.release()
        assert (await shop.submit(idempotency_key="k")).id == skipped.id
        assert (await shop.submit(slot_ms=60_000)).id == skipped.id
        assert (await shop.rooms.store.schedule_slots())["t"] == 60_000


async def test_an_attempt_that_waits_for_its_time_holds_no_place_and_is_not_skipped() -> None:
    retry = {"attempts": 2, "backoff": "1h"}
    async with open_shop(limited(overlap="skip", retry=retry)) as shop:
        await shop.submit()
        shop.runner.release("t", RunStatus.FAILURE)
        await shop.settled()
        assert len(await shop.rooms.runs("t")) == 2
        second = await shop.submit()
        assert second.status is RunStatus.QUEUED
        shop.rooms.clock.advance(3600)
        await shop.settled()
        # The dispatcher waits in real time; what is due is told to it by the next wake.
        shop.rooms.dispatcher.limits_changed()
        on = [run for run in await shop.rooms.runs("t") if run.status is RunStatus.RUNNING]
        assert [run.id for run in on] == [second.id]
        await shop.release()
        on = [run for run in await shop.rooms.runs("t") if run.status is RunStatus.RUNNING]
        assert [(run.trigger, run.attempt) for run in on] == [(Trigger.RETRY, 2)]
        assert shop.runner.most_on["t"] == 1


async def test_a_chained_run_that_finds_its_group_full_is_skipped() -> None:
    down = limited("t", overlap="skip", trigger={"chain": {"from": "up"}})
    async with open_shop(make_task("up"), down) as shop:
        await shop.submit("up")
        await shop.submit("up")
        assert await shop.statuses() == [ON, SKIPPED]


# Restarts and reloads


async def left_behind(store: Store, *tasks: Task, runs: int) -> None:
    rooms = Rooms(store)
    rooms.put(*tasks)
    for _ in range(runs):
        rooms.clock.advance(0.001)
        await rooms.queue.submit(REQUEST)


async def test_limits_hold_after_a_restart() -> None:
    store, task = MemoryStore(), limited(limit=2, overlap="queue")
    await left_behind(store, task, runs=4)
    async with open_shop(task, store=store) as shop:
        assert await shop.statuses() == [ON, ON, WAITS, WAITS]


async def test_keys_are_known_after_a_restart() -> None:
    store = MemoryStore()
    task = limited(overlap="queue", key="${params.repo}", params={"repo": "none"})
    rooms = Rooms(store)
    rooms.put(task)
    for repo in ("a", "a", "b"):
        rooms.clock.advance(0.001)
        await rooms.queue.submit(replace(REQUEST, params={"repo": repo}))
    async with open_shop(task, store=store) as shop:
        assert await shop.statuses() == [ON, WAITS, ON]


async def test_what_a_crash_left_to_be_replaced_is_replaced_at_the_start() -> None:
    store = MemoryStore()
    await left_behind(store, make_task("t"), runs=3)
    async with open_shop(limited(overlap="replace"), store=store) as shop:
        assert await shop.statuses() == [REPLACED, REPLACED, ON]


async def test_a_changed_limit_holds_for_runs_that_are_queued() -> None:
    async with open_shop(limited(limit=1, overlap="queue")) as shop:
        for _ in range(4):
            await shop.submit()
        shop.rooms.put(limited(limit=3, overlap="queue"))
        assert await shop.statuses() == [ON, ON, ON, WAITS]
        shop.rooms.put(make_task("t"))
        assert await shop.statuses() == [ON, ON, ON, ON]


async def test_queued_runs_of_a_task_that_is_removed_end() -> None:
    async with open_shop(limited(overlap="queue")) as shop:
        await shop.submit()
        await shop.submit()
        shop.rooms.remove("t")
        assert await shop.statuses() == [ON, ("failure", "task_gone")]


# Runs that wait for runs


def inside(shop: Shop) -> Inside:
    rooms = shop.rooms
    return Inside(
        queue=rooms.queue,
        registry=rooms.registry,
        store=rooms.store,
        bus=EventBus(),
        clock=rooms.clock,
        **secrets_for_inside(rooms),
    )


GRANTED = {"dicode": {"tasks": ["*"]}}


async def call(shop: Shop, parent: str, target: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Start a run and give the call it makes from inside."""
    await shop.submit(parent)
    run = (await shop.rooms.runs(parent))[-1]
    assert run.status is RunStatus.RUNNING
    shop.rooms.clock.advance(0.001)
    entry = shop.rooms.registry.get(parent)
    assert entry is not None
    task = cast(Task, entry.task)
    return lambda: inside(shop).run_task(run, task, target, {})


@pytest.mark.parametrize("overlap", ["queue", "allow", "replace"])
async def test_a_task_that_waits_for_itself_is_told_why_that_cannot_be(overlap: str) -> None:
    task = limited(limit=1, overlap=overlap, permissions=GRANTED)
    async with open_shop(task) as shop:
        run_itself = await call(shop, "t", "t")
        async with asyncio.timeout(5):
            with pytest.raises(DicodeError) as refusal:
                await run_itself()
        assert refusal.value.code is Code.CONFLICT
        assert "task t takes 1 run at a time" in refusal.value.message
        assert "concurrency.limit" in (refusal.value.hint or "")
        assert await shop.statuses() == [ON, ("skipped", "deadlock")]


async def test_a_task_that_skips_tells_a_call_of_itself_so() -> None:
    async with open_shop(limited(overlap="skip", permissions=GRANTED)) as shop:
        run_itself = await call(shop, "t", "t")
        answer = await run_itself()
        assert (answer["status"], answer["error"]["code"]) == ("skipped", "overlap")


async def test_two_tasks_that_wait_for_each_other_are_told() -> None:
    tasks = [limited(name, limit=1, permissions=GRANTED) for name in ("a", "b")]
    async with open_shop(*tasks, held=("a", "b")) as shop:
        a_calls, b_calls = await call(shop, "a", "b"), await call(shop, "b", "a")
        first = asyncio.ensure_future(a_calls())
        await shop.settled()
        assert not first.done()
        with pytest.raises(DicodeError) as refusal:
            await b_calls()
        assert "task a takes 1 run" in refusal.value.message
        await shop.release("b")
        await shop.release("b")
        assert (await first)["status"] == "success"


async def test_a_limit_that_is_lowered_over_a_waiting_call_ends_it() -> None:
    def task(limit: int) -> Task:
        return limited(limit=limit, permissions=GRANTED)

    async with open_shop(task(2), make_task("big"), held=("t", "big"), slots=1) as shop:
        run_itself = await call(shop, "t", "t")
        await shop.submit("big")
        calling = asyncio.ensure_future(run_itself())
        await shop.settled()
        assert not calling.done()
        shop.rooms.put(task(1))
        async with asyncio.timeout(5):
            with pytest.raises(DicodeError, match="would never start"):
                await calling


async def test_a_call_with_room_for_it_is_no_deadlock() -> None:
    async with open_shop(limited(limit=2, permissions=GRANTED)) as shop:
        run_itself = await call(shop, "t", "t")
        calling = asyncio.ensure_future(run_itself())
        await shop.settled()
        await shop.release()
        assert (await calling)["status"] == "success"


async def test_a_child_starts_no_later_than_the_priority_of_who_waits_for_it() -> None:
    child = make_task("c")
    async with open_shop(make_task("t", permissions=GRANTED), child, slots=1) as shop:
        await shop.submit(priority=50)
        run = (await shop.rooms.runs("t"))[-1]
        entry = shop.rooms.registry.get("t")
        assert entry is not None
        answer = await inside(shop).run_task(run, cast(Task, entry.task), "c", {})
        stored = await shop.rooms.store.get_run(answer["runID"])
        assert stored is not None
        assert stored.priority == 50


# Priority


async def test_a_run_has_the_priority_of_its_request_or_of_its_task() -> None:
    rooms = Rooms()
    rooms.put(make_task("t", priority=7), make_task("u"))
    given = [
        (await rooms.queue.submit(RunRequest(task, Trigger.API, priority=priority))).priority
        for task, priority in (("t", None), ("t", -3), ("t", 0), ("u", None))
    ]
    assert given == [7, -3, 0, 0]


async def test_the_most_urgent_run_gets_the_next_slot() -> None:
    async with open_shop(make_task("t"), slots=1) as shop:
        await shop.submit()
        for priority in (0, -5, 9, 0):
            await shop.submit(priority=priority)
        order: list[int] = []
        for _ in range(4):
            await shop.release()
            on = [r for r in await shop.rooms.runs("t") if r.status is RunStatus.RUNNING]
            order.append(on[0].priority)
        assert order == [9, 0, 0, -5]


# Faults


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("overlap", ["skip", "replace", "queue"])
async def test_whichever_call_of_the_store_fails_no_more_are_on_than_the_limit(
    overlap: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three submits one after the other, one call of the store going wrong, and a restart."""
    monkeypatch.setattr("dicode_mcp.queue._STORE_PAUSES_S", (0.0,))
    task = limited(overlap=overlap)
    for number in range(1, 25):
        store, clock = MemoryStore(), FakeClock()
        faulty = FaultyStore(store, number, fault)
        rooms = Rooms(cast(Store, faulty), clock)
        rooms.put(task)
        runner = InstantRunner(rooms)
        runner.held.add("t")

        async def life(rooms: Rooms = rooms) -> None:
            for key in ("a", "b", "c"):
                for _ in range(3):
                    try:
                        await rooms.queue.submit(replace(REQUEST, idempotency_key=key))
                        break
                    except DicodeError:
                        continue

        async with running(runner.run()):
            living = asyncio.create_task(life())
            for _ in range(200):
                await asyncio.sleep(0)
            living.cancel()
            await asyncio.wait([living])
        assert runner.most_on.get("t", 0) <= 1, f"call {number}"
        async with open_shop(task, store=store) as shop:
            for _ in range(4):
                if shop.runner.holding:
                    await shop.release()
            assert shop.runner.most_on.get("t", 0) <= 1, f"call {number}"
            runs = await shop.rooms.runs("t")
            assert all(run.status.ended for run in runs), f"call {number}"
            assert len({run.idempotency_key for run in runs}) == len(runs)
        if faulty.calls < number:
            break
    else:
        pytest.fail("the calls never came to an end")


async def test_a_replaced_run_that_cannot_be_ended_now_is_only_waited_for() -> None:
    class Deaf(MemoryStore):
        deaf = False

        async def get_run(self, run_id: str) -> Run | None:
            if self.deaf:
                raise DicodeError(Code.STORAGE_UNAVAILABLE, "trouble")
            return await super().get_run(run_id)

    store = Deaf()
    async with open_shop(limited(overlap="replace"), store=store) as shop:
        await shop.submit()
        store.deaf = True
        second = await shop.submit()
        store.deaf = False
        assert second.status is RunStatus.QUEUED
        assert await shop.statuses() == [ON, WAITS]
        await shop.release()
        assert await shop.statuses() == [DONE, ON]


def test_an_outcome_of_a_replaced_run_says_why() -> None:
    from dicode_mcp.outcome import decide
    from dicode_mcp.protocols import Exit, Report

    exit = Exit(None, 15, stopped=True)
    outcome: Outcome = decide(exit, Report(), now_ms=1, stop_reason=Reason.REPLACED)
    assert (outcome.status, outcome.reason) == (RunStatus.CANCELLED, Reason.REPLACED)
    assert outcome.error is not None
    assert "concurrency.overlap" in outcome.error.message

import asyncio

import pytest

from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.testing.clock import FakeClock


def dispatcher(slots: int = 1) -> tuple[LocalDispatcher, FakeClock]:
    clock = FakeClock()
    made = LocalDispatcher(slots, clock)
    made.open()
    return made, clock


def submit(to: LocalDispatcher, run_id: str, *, priority: int = 0, created: int = 0) -> None:
    to.submit(run_id, priority=priority, created_at_ms=created, not_before_ms=None)


async def take(source: LocalDispatcher) -> str:
    async with asyncio.timeout(5):
        return await source.next()


async def starved(source: LocalDispatcher) -> bool:
    waiter = asyncio.create_task(source.next())
    for _ in range(5):
        await asyncio.sleep(0)
    waiter.cancel()
    return not waiter.done()


async def test_runs_start_by_priority_and_then_by_age() -> None:
    queue, _ = dispatcher(slots=4)
    submit(queue, "young", created=9)
    submit(queue, "old", created=1)
    submit(queue, "urgent", priority=5, created=99)
    assert [await take(queue) for _ in range(3)] == ["urgent", "old", "young"]


async def test_no_more_runs_are_on_than_there_are_slots() -> None:
    queue, _ = dispatcher(slots=1)
    submit(queue, "a")
    submit(queue, "b", created=1)
    assert await take(queue) == "a"
    assert await starved(queue)
    queue.release("a")
    assert await take(queue) == "b"


async def test_a_parent_that_waits_lends_its_slot_and_takes_it_back() -> None:
    queue, _ = dispatcher(slots=1)
    submit(queue, "parent")
    assert await take(queue) == "parent"
    queue.lend("parent")
    submit(queue, "child")
    assert await take(queue) == "child"
    queue.reclaim("parent")
    assert queue.running == 2
    queue.release("child")
    submit(queue, "next")
    assert await starved(queue)


async def test_a_parent_that_ends_while_its_slot_is_lent_frees_nothing_twice() -> None:
    queue, _ = dispatcher(slots=1)
    submit(queue, "parent")
    await take(queue)
    queue.lend("parent")
    queue.release("parent")
    queue.reclaim("parent")
    assert queue.running == 0


async def test_a_delayed_run_waits_without_a_slot_until_its_time() -> None:
    queue, clock = dispatcher(slots=1)
    later = clock.now_ms() + 5_000
    queue.submit("later", priority=9, created_at_ms=0, not_before_ms=later)
    submit(queue, "now")
    assert await take(queue) == "now"
    queue.release("now")
    assert await starved(queue)
    clock.advance(5)
    assert await take(queue) == "later"


async def test_a_run_cancelled_while_it_waits_is_never_handed_out() -> None:
    queue, _ = dispatcher()
    submit(queue, "gone")
    submit(queue, "stays", created=1)
    assert queue.discard("gone")
    assert not queue.discard("gone")
    assert await take(queue) == "stays"
    assert queue.waiting == 0


async def test_nothing_starts_before_the_queue_is_open_nor_after_it_is_closed() -> None:
    clock = FakeClock()
    queue = LocalDispatcher(1, clock)
    submit(queue, "a")
    assert await starved(queue)
    queue.open()
    assert await take(queue) == "a"
    queue.close()
    queue.release("a")
    submit(queue, "b", created=1)
    assert await starved(queue)


def test_a_server_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="slot"):
        LocalDispatcher(0, FakeClock())

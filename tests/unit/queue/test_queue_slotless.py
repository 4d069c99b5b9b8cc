import asyncio

from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.testing.clock import FakeClock


def opened(slots: int = 1) -> LocalDispatcher:
    made = LocalDispatcher(slots, FakeClock())
    made.open()
    return made


def submit(to: LocalDispatcher, run_id: str, *, slotless: bool = False) -> None:
    to.submit(run_id, priority=0, created_at_ms=0, not_before_ms=None, slotless=slotless)


async def take(source: LocalDispatcher) -> str:
    async with asyncio.timeout(5):
        return await source.next()


async def test_a_slotless_run_is_handed_out_though_every_slot_is_taken() -> None:
    queue = opened(slots=1)
    submit(queue, "job")
    assert await take(queue) == "job"
    submit(queue, "daemon", slotless=True)
    assert await take(queue) == "daemon"
    assert queue.running == 1


async def test_slotless_runs_leave_the_slots_to_others() -> None:
    queue = opened(slots=1)
    for number in range(5):
        submit(queue, f"d{number}", slotless=True)
    submit(queue, "job")
    assert [await take(queue) for _ in range(6)] == ["d0", "d1", "d2", "d3", "d4", "job"]
    assert queue.running == 1


async def test_a_slotless_run_that_is_on_is_not_taken_twice_and_is_forgotten_when_released() -> (
    None
):
    queue = opened()
    submit(queue, "d", slotless=True)
    assert await take(queue) == "d"
    submit(queue, "d", slotless=True)
    assert queue.waiting == 0
    queue.release("d")
    submit(queue, "d", slotless=True)
    assert await take(queue) == "d"


async def test_a_slotless_run_can_be_discarded_before_it_starts() -> None:
    queue = opened()
    submit(queue, "d", slotless=True)
    assert queue.discard("d")
    submit(queue, "job")
    assert await take(queue) == "job"


async def test_a_closed_dispatcher_hands_out_no_slotless_run_either() -> None:
    queue = opened()
    queue.close()
    submit(queue, "d", slotless=True)
    waiter = asyncio.create_task(queue.next())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiter.done()
    queue.open()
    assert await waiter == "d"

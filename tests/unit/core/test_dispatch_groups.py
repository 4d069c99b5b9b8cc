"""Groups of runs with a limit, on the dispatcher alone."""

import asyncio

from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.runs.limits import Crowd, Group
from dicode_mcp.testing.clock import FakeClock

A, B = Group("a"), Group("b")


class Shop:
    def __init__(self, slots: int = 10, **limits: int | None) -> None:
        self.limits = limits
        self.clock = FakeClock()
        self.queue = LocalDispatcher(slots, self.clock, lambda g: self.limits.get(g.task_id))
        self.queue.open()
        self._age = 0

    def submit(
        self, *run_ids: str, priority: int = 0, group: Group = A, later_s: float | None = None
    ) -> None:
        for run_id in run_ids:
            self._age += 1
            not_before = None if later_s is None else self.clock.now_ms() + round(later_s * 1000)
            self.queue.submit(
                run_id,
                priority=priority,
                created_at_ms=self._age,
                not_before_ms=not_before,
                group=group,
            )

    async def taken(self) -> list[str]:
        """Take what may start now."""
        found: list[str] = []
        while True:
            waiter = asyncio.create_task(self.queue.next())
            for _ in range(5):
                await asyncio.sleep(0)
            if not waiter.done():
                waiter.cancel()
                return found
            found.append(waiter.result())


async def test_a_full_group_holds_up_nobody_else() -> None:
    shop = Shop(a=1)
    shop.submit("a1", "a2", "a3")
    shop.submit("b1", group=B)
    assert await shop.taken() == ["a1", "b1"]
    shop.queue.release("a1")
    assert await shop.taken() == ["a2"]


async def test_keys_of_one_task_are_groups_of_their_own() -> None:
    shop = Shop(a=1)
    shop.submit("x1", "x2", group=Group("a", "x"))
    shop.submit("y1", group=Group("a", "y"))
    assert await shop.taken() == ["x1", "y1"]


async def test_who_waits_in_a_group_goes_by_priority_and_then_by_age() -> None:
    shop = Shop(a=1)
    shop.submit("a1")
    assert await shop.taken() == ["a1"]
    shop.submit("old", "young")
    assert await shop.taken() == []
    shop.submit("urgent", priority=5)
    order: list[str] = []
    for run_id in ("a1", "urgent", "old"):
        shop.queue.release(run_id)
        order += await shop.taken()
    assert order == ["urgent", "old", "young"]


async def test_a_lent_slot_keeps_its_place_in_the_group() -> None:
    shop = Shop(slots=1, a=1)
    shop.submit("parent", "other")
    shop.submit("child", group=B)
    assert await shop.taken() == ["parent"]
    shop.queue.lend("parent")
    assert await shop.taken() == ["child"]
    shop.queue.release("child")
    shop.queue.reclaim("parent")
    assert await shop.taken() == []
    shop.queue.release("parent")
    assert await shop.taken() == ["other"]


async def test_a_run_that_waits_for_its_time_holds_no_place() -> None:
    shop = Shop(a=1)
    shop.submit("retry", later_s=60)
    shop.submit("a1")
    assert await shop.taken() == ["a1"]
    assert shop.queue.crowd(A) == Crowd(("a1",), (), ("retry", "a1"))
    shop.clock.advance(61)
    assert await shop.taken() == []
    assert shop.queue.crowd(A) == Crowd(("a1",), ("retry",), ("retry", "a1"))
    shop.queue.release("a1")
    assert await shop.taken() == ["retry"]


async def test_a_raised_limit_lets_runs_go_on_and_a_lowered_one_ends_none() -> None:
    shop = Shop(a=1)
    shop.submit("a1", "a2", "a3", "a4")
    assert await shop.taken() == ["a1"]
    shop.limits["a"] = 3
    shop.queue.limits_changed()
    assert await shop.taken() == ["a2", "a3"]
    shop.limits["a"] = 1
    shop.queue.limits_changed()
    shop.queue.release("a1")
    shop.queue.release("a2")
    assert await shop.taken() == []
    shop.limits["a"] = None
    shop.queue.limits_changed()
    assert await shop.taken() == ["a4"]


async def test_a_run_that_is_cancelled_in_the_line_leaves_its_turn_to_the_next() -> None:
    shop = Shop(slots=1, a=1)
    shop.submit("a1", "a2", "a3")
    assert await shop.taken() == ["a1"]
    shop.submit("b1", group=B, priority=9)
    shop.queue.release("a1")
    assert await shop.taken() == ["b1"]
    assert shop.queue.discard("a2")
    shop.queue.release("b1")
    assert await shop.taken() == ["a3"]


async def test_nothing_is_left_behind_of_runs_that_are_over() -> None:
    shop = Shop(slots=3, a=2)
    for number in range(200):
        shop.submit(f"r{number}", group=Group("a", f"key{number % 7}"))
    started = 0
    while taken := await shop.taken():
        started += len(taken)
        for run_id in taken:
            shop.queue.release(run_id)
    assert started == 200
    left = vars(shop.queue)
    assert not any(left[name] for name in ("_known", "_waiting_of", "_group", "_on", "_lines"))

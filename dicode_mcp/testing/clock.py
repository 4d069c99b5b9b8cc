"""A clock that moves only when a test moves it, and wakes those whose time has come."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

START_MS = 1_767_225_600_000
"""2026-01-01T00:00Z."""


class FakeClock:
    """A ``Clock`` under the test's hand.

    A loop that is driven by it does its work between two waits, so a test waits for ``asleep``
    before it moves time on: nothing sleeps for real, and nothing is missed.
    """

    def __init__(self, now_ms: int = START_MS, monotonic: float = 1_000.0) -> None:
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._sleepers: list[tuple[float, int, asyncio.Future[bool]]] = []
        self._number = count()
        self._waiting: dict[asyncio.Future[bool], asyncio.Event] = {}
        self._changed = asyncio.Event()

    def now_ms(self) -> int:
        """Read the wall clock."""
        return self._now_ms

    def monotonic(self) -> float:
        """Read the monotonic clock."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks; ``seconds`` is not negative."""
        if seconds < 0:
            raise ValueError("time passes forward; set_wall moves the wall clock alone")
        self._now_ms += round(seconds * 1000)
        self._monotonic += seconds
        while self._sleepers and self._sleepers[0][0] <= self._monotonic + 1e-6:
            self._end(heapq.heappop(self._sleepers)[2], False)

    def set_wall(self, now_ms: int) -> None:
        """Set the wall clock alone, as an operator or NTP does."""
        self._now_ms = now_ms

    async def wait(self, wake: asyncio.Event, seconds: float | None) -> bool:
        """Wait for ``wake``, or until the test has let ``seconds`` pass."""
        if wake.is_set():
            return True
        if seconds is not None and seconds <= 0:
            await asyncio.sleep(0)
            return wake.is_set()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if seconds is not None:
            until = self._monotonic + seconds
            heapq.heappush(self._sleepers, (until, next(self._number), future))
        self._waiting[future] = wake
        self._changed.set()
        try:
            async with asyncio.TaskGroup() as group:
                waker = group.create_task(wake.wait())
                waker.add_done_callback(lambda _: self._end(future, True))
                woken = await future
                waker.cancel()
            return woken
        finally:
            self._waiting.pop(future, None)

    async def asleep(self, number: int = 1) -> None:
        """Wait until at least ``number`` tasks wait on this clock."""
        while sum(not wake.is_set() for wake in self._waiting.values()) < number:
            self._changed.clear()
            await self._changed.wait()

    def next_wake(self) -> float | None:
        """Give the seconds until the next timed wait ends; None when nobody waits for time."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        if not self._sleepers:
            return None
        return max(0.0, self._sleepers[0][0] - self._monotonic)

    def _end(self, future: asyncio.Future[bool], woken: bool) -> None:
        self._waiting.pop(future, None)
        if not future.done():
            future.set_result(woken)

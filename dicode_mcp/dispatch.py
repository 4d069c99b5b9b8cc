"""The local dispatcher: this process's slots, and the order in which committed runs get them.

It holds run ids only. Rows are the truth; after a crash the daemon hands the queued ones in again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from dicode_mcp.clock import Clock


class LocalDispatcher:
    """Hands out runs by priority, then age, never more at once than there are slots.

    A run with ``not_before_ms`` in the future waits aside without holding a slot. A slotless run
    (a daemon: it lasts as long as the server) is handed out at once and counts nowhere. Belongs to
    one event loop; ``next`` has one caller, the runner.
    """

    def __init__(self, slots: int, clock: Clock) -> None:
        if slots < 1:
            raise ValueError("there must be at least one slot")
        self._slots = slots
        self._clock = clock
        self._ready: list[tuple[int, int, str]] = []
        self._later: list[tuple[int, int, int, str]] = []
        self._slotless: deque[str] = deque()
        self._outside: set[str] = set()
        """Slotless runs that are on."""
        self._known: set[str] = set()
        self._holders: set[str] = set()
        self._lent: set[str] = set()
        self._wake = asyncio.Event()
        self._open = False

    @property
    def slots(self) -> int:
        """How many runs may be on at once."""
        return self._slots

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return len(self._holders)

    @property
    def waiting(self) -> int:
        """How many runs wait for a slot or for their time."""
        return len(self._known)

    def open(self) -> None:
        """Begin to hand out runs."""
        self._open = True
        self._wake.set()

    def close(self) -> None:
        """Hand out no more runs; those waiting stay queued in the store."""
        self._open = False

    def submit(
        self,
        run_id: str,
        *,
        priority: int,
        created_at_ms: int,
        not_before_ms: int | None,
        slotless: bool = False,
    ) -> None:
        """Take a committed run; one that is already known is left as it is."""
        if any(run_id in ids for ids in (self._known, self._holders, self._lent, self._outside)):
            return
        self._known.add(run_id)
        if slotless:
            self._slotless.append(run_id)
        elif not_before_ms is not None and not_before_ms > self._clock.now_ms():
            heapq.heappush(self._later, (not_before_ms, -priority, created_at_ms, run_id))
        else:
            heapq.heappush(self._ready, (-priority, created_at_ms, run_id))
        self._wake.set()

    def discard(self, run_id: str) -> bool:
        """Forget a waiting run. Its heap entry is skipped when it comes up."""
        if run_id not in self._known:
            return False
        self._known.discard(run_id)
        return True

    async def next(self) -> str:
        """Wait for a free slot and a run that may start; take the slot, give the run's id."""
        while True:
            self._wake.clear()
            pause = self._promote()
            if self._open and (run_id := self._pop_slotless()) is not None:
                self._outside.add(run_id)
                return run_id
            if self._open and len(self._holders) < self._slots:
                run_id = self._pop()
                if run_id is not None:
                    self._holders.add(run_id)
                    return run_id
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def release(self, run_id: str) -> None:
        """Give a run's slot back, whether held or lent."""
        self._outside.discard(run_id)
        self._holders.discard(run_id)
        self._lent.discard(run_id)
        self._wake.set()

    def lend(self, run_id: str) -> None:
        """Free the slot of a run that waits for another run."""
        if run_id in self._holders:
            self._holders.discard(run_id)
            self._lent.add(run_id)
            self._wake.set()

    def reclaim(self, run_id: str) -> None:
        """Take the slot again; above the limit if need be, since the process is there already."""
        if run_id in self._lent:
            self._lent.discard(run_id)
            self._holders.add(run_id)

    def _promote(self) -> float | None:
        """Move runs whose time has come; give the seconds until the next one, at most 60.

        The bound lets a wall clock that jumps be noticed.
        """
        now = self._clock.now_ms()
        while self._later and self._later[0][0] <= now:
            _, priority, created, run_id = heapq.heappop(self._later)
            heapq.heappush(self._ready, (priority, created, run_id))
        if not self._later:
            return None
        return min(60.0, (self._later[0][0] - now) / 1000)

    def _pop_slotless(self) -> str | None:
        while self._slotless:
            run_id = self._slotless.popleft()
            if run_id in self._known:
                self._known.discard(run_id)
                return run_id
        return None

    def _pop(self) -> str | None:
        while self._ready:
            _, _, run_id = heapq.heappop(self._ready)
            if run_id in self._known:
                self._known.discard(run_id)
                return run_id
        return None

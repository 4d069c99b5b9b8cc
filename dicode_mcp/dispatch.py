"""The local dispatcher: this process's slots, and the order in which committed runs get them.

It holds run ids and the groups they are counted in. Rows are the truth; after a crash the daemon
hands the queued ones in again, and nothing else has to be remembered.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

from dicode_mcp.clock import Clock
from dicode_mcp.runs.limits import Blocked, Crowd, Group

LimitOf = Callable[[Group], int | None]
"""Gives how many runs of a group may be on now; None for any number."""
_Place = tuple[int, int, int, str]
"""Priority (negative), age, arrival and id: runs start in this order."""


def unlimited(group: Group) -> int | None:
    """Set no limit."""
    return None


@dataclass(slots=True)
class _Waiting:
    arrival: int
    group: Group | None
    later: bool = False


class LocalDispatcher:
    """Hands out runs by priority, then age, never more at once than there are slots.

    Nor more of a group than ``limit_of`` allows: a run whose group is full steps into the group's
    own line, so that it holds up nobody else, and steps back when a place gets free. A run keeps
    its place in the group while its slot is lent. A run with ``not_before_ms`` in the future waits
    aside without holding anything. A slotless run (a daemon: it lasts as long as the server) is
    handed out at once and counts nowhere. Belongs to one event loop; ``next`` has one caller, the
    runner.
    """

    def __init__(self, slots: int, clock: Clock, limit_of: LimitOf = unlimited) -> None:
        if slots < 1:
            raise ValueError("there must be at least one slot")
        self._slots = slots
        self._clock = clock
        self._limit_of = limit_of
        self._ready: list[_Place] = []
        self._later: list[tuple[int, _Place]] = []
        self._lines: dict[Group, list[_Place]] = {}
        """Runs that met their group full."""
        self._slotless: deque[str] = deque()
        self._outside: set[str] = set()
        """Slotless runs that are on."""
        self._known: dict[str, _Waiting] = {}
        self._waiting_of: dict[Group, set[str]] = {}
        self._group: dict[str, Group] = {}
        """Of runs that are on and have one."""
        self._on: dict[Group, dict[str, int]] = {}
        """Runs that are on, with their arrival."""
        self._arrivals = count()
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
        group: Group | None = None,
    ) -> None:
        """Take a committed run; one that is already known is left as it is."""
        if any(run_id in ids for ids in (self._known, self._holders, self._lent, self._outside)):
            return
        waiting = _Waiting(next(self._arrivals), None if slotless else group)
        self._known[run_id] = waiting
        if waiting.group is not None:
            self._waiting_of.setdefault(waiting.group, set()).add(run_id)
        place = (-priority, created_at_ms, waiting.arrival, run_id)
        if slotless:
            self._slotless.append(run_id)
        elif not_before_ms is not None and not_before_ms > self._clock.now_ms():
            waiting.later = True
            heapq.heappush(self._later, (not_before_ms, place))
        else:
            self._make_ready(place, waiting.group)
        self._wake.set()

    def discard(self, run_id: str) -> bool:
        """Forget a waiting run. Its heap entry is skipped when it comes up."""
        waiting = self._take_out(run_id)
        if waiting is None:
            return False
        if waiting.group is not None:
            # It may have been the one that the group's free place was meant for.
            self._feed(waiting.group)
        return True

    def crowd(self, group: Group) -> Crowd:
        """Give the unfinished runs of a group that are known here, in the order they came."""
        self._promote()
        on = self._on.get(group, {})
        waiting = {i: self._known[i].arrival for i in self._waiting_of.get(group, ())}
        later = {run_id for run_id in waiting if self._known[run_id].later}
        return Crowd(
            on=_in_order(on),
            due=_in_order({i: n for i, n in waiting.items() if i not in later}),
            everyone=_in_order({**on, **waiting}),
        )

    def blocked(self, run_id: str) -> Blocked | None:
        """Say why a waiting run does not start, when that is because its group is full.

        Said of one that waits for its time as well: it would be so then.
        """
        waiting = self._known.get(run_id)
        if waiting is None or waiting.group is None:
            return None
        limit = self._limit_of(waiting.group)
        on = self._on.get(waiting.group, {})
        if limit is None or len(on) < limit:
            return None
        return Blocked(waiting.group, limit, tuple(on))

    def limits_changed(self) -> None:
        """Look again at the runs that met their group full."""
        for group in list(self._lines):
            self._feed(group)
        self._wake.set()

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
        group = self._group.pop(run_id, None)
        if group is not None:
            on = self._on[group]
            del on[run_id]
            if not on:
                del self._on[group]
            self._feed(group)
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
            _, place = heapq.heappop(self._later)
            waiting = self._known.get(place[-1])
            if waiting is not None:
                waiting.later = False
                self._make_ready(place, waiting.group)
        if not self._later:
            return None
        return min(60.0, (self._later[0][0] - now) / 1000)

    def _make_ready(self, place: _Place, group: Group | None) -> None:
        line = self._lines.get(group) if group is not None else None
        if group is None or line is None:
            heapq.heappush(self._ready, place)
            return
        # Behind those of its group that wait already, unless it goes before them by right.
        heapq.heappush(line, place)
        self._feed(group)

    def _take_out(self, run_id: str) -> _Waiting | None:
        waiting = self._known.pop(run_id, None)
        if waiting is not None and waiting.group is not None:
            ids = self._waiting_of[waiting.group]
            ids.discard(run_id)
            if not ids:
                del self._waiting_of[waiting.group]
        return waiting

    def _room(self, group: Group) -> int | None:
        limit = self._limit_of(group)
        return None if limit is None else limit - len(self._on.get(group, ()))

    def _feed(self, group: Group) -> None:
        """Let as many of a group's line go on as there is room for."""
        line = self._lines.get(group)
        if line is None:
            return
        room = self._room(group)
        while line and (room is None or room > 0):
            place = heapq.heappop(line)
            if place[-1] in self._known:
                heapq.heappush(self._ready, place)
                room = None if room is None else room - 1
        if not line:
            del self._lines[group]
        self._wake.set()

    def _pop_slotless(self) -> str | None:
        while self._slotless:
            run_id = self._slotless.popleft()
            if self._take_out(run_id) is not None:
                return run_id
        return None

    def _pop(self) -> str | None:
        while self._ready:
            place = heapq.heappop(self._ready)
            run_id = place[-1]
            waiting = self._known.get(run_id)
            if waiting is None:
                continue
            if waiting.group is not None:
                room = self._room(waiting.group)
                if room is not None and room <= 0:
                    heapq.heappush(self._lines.setdefault(waiting.group, []), place)
                    continue
                self._group[run_id] = waiting.group
                self._on.setdefault(waiting.group, {})[run_id] = waiting.arrival
            self._take_out(run_id)
            return run_id
        return None


def _in_order(arrivals: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(arrivals, key=lambda run_id: arrivals[run_id]))

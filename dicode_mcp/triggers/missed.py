"""Tells which cron tasks got no run in time, since when, how often and why.

A slot is missed when its run is not submitted, or not started, within a minute of its time. This
decides nothing: what is caught up is the table's affair. What is told is forgotten after a day.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from dicode_mcp.clock import Clock, iso
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.registry import Registry
from dicode_mcp.triggers.catchup import GRACE_MS
from dicode_mcp.triggers.schedule import Schedule

log = logging.getLogger("dicode.cron")

OWNER = "missed"
TOLD_FOR_MS = 24 * 3600 * 1000
MOST_COUNTED = 100
"""Beyond so many slots of one absence the number is no longer exact: each costs 20 µs to find."""
_LINES_AT_ONCE = 10
_LONGEST_NAP_S = 600.0


class Why(StrEnum):
    """Why a slot was missed; stable, the reason of the condition."""

    SERVER_OFF = "ServerOff"
    CLOCK_JUMPED = "ClockJumped"
    STALLED = "Stalled"
    STORAGE = "StorageTrouble"
    QUEUE = "QueueTooLong"


_SENTENCES = {
    Why.SERVER_OFF: "the server was off",
    Why.CLOCK_JUMPED: "the machine slept, or its clock was put forward",
    Why.STALLED: "the server was too busy to look at the clock",
    Why.STORAGE: "the store could not take a run",
    Why.QUEUE: "their runs waited over a minute for a free slot; raise "
    "execution.max_concurrent_runs, give the task a priority, or spread tasks with jitter",
}


@dataclass(frozen=True, slots=True)
class Miss:
    """Slots of a task that were missed: late ones after ``after_ms``, seen at ``seen_ms``.

    With ``slot_ms`` it is this one.
    """

    task_id: str
    schedule: Schedule
    why: Why
    seen_ms: int
    after_ms: int = 0
    slot_ms: int | None = None


@dataclass(slots=True)
class _Told:
    since_ms: int
    last_ms: int
    slots: int = 0
    exact: bool = True
    whys: dict[Why, None] = field(default_factory=dict[Why, None])
    """In order, each once."""


class MissedRuns:
    """Keeps the ``MissedRuns`` conditions true while ``run`` runs."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._new: deque[Miss] = deque()
        self._told: dict[str, _Told] = {}
        self._wake = asyncio.Event()

    def note(self, miss: Miss) -> None:
        """Take note; it is counted and told a little later, after what is due."""
        self._new.append(miss)
        self._wake.set()

    async def run(self) -> None:
        """Count and tell until cancelled."""
        while True:
            self._wake.clear()
            lines = 0
            while self._new:
                miss = self._new.popleft()
                self._tell(miss, log_it=lines < _LINES_AT_ONCE)
                lines += 1
                await asyncio.sleep(0)
            if lines > _LINES_AT_ONCE:
                log.warning("more cron tasks missed slots", extra={"tasks": lines - _LINES_AT_ONCE})
            self._expire()
            nap_s = self._nap_s()
            if nap_s is None:
                await self._wake.wait()
            else:
                await self._clock.wait(self._wake, nap_s)

    def _tell(self, miss: Miss, *, log_it: bool) -> None:
        number, first = count(miss)
        told = self._told.setdefault(miss.task_id, _Told(first, miss.seen_ms))
        told.since_ms = min(told.since_ms, first)
        told.last_ms = max(told.last_ms, miss.seen_ms)
        told.slots += number
        told.exact = told.exact and number < MOST_COUNTED
        told.whys.pop(miss.why, None)
        told.whys[miss.why] = None
        self._show(miss.task_id, told)
        if log_it:
            extra = {"task_id": miss.task_id, "slots": number, "since": iso(first)}
            log.warning("a cron task missed slots: %s", _SENTENCES[miss.why], extra=extra)

    def _show(self, task_id: str, told: _Told) -> None:
        newest = next(reversed(told.whys))
        number = f"{told.slots}{'' if told.exact else ' or more'}"
        slots = "slot" if told.slots == 1 else "slots"
        message = (
            f"{number} {slots} since {iso(told.since_ms)} got no run in time: "
            f"{'; '.join(_SENTENCES[why] for why in told.whys)}. trigger.catchup decides which are "
            "caught up; get_runs shows them"
        )
        condition = Condition(
            ConditionType.MISSED_RUNS, True, newest.value, message, since_ms=told.since_ms
        )
        self._registry.set_conditions(task_id, OWNER, (condition,))

    def _expire(self) -> None:
        old = self._clock.now_ms() - TOLD_FOR_MS
        for task_id in [known for known, told in self._told.items() if told.last_ms <= old]:
            del self._told[task_id]
            self._registry.set_conditions(task_id, OWNER, ())

    def _nap_s(self) -> float | None:
        ends = [told.last_ms + TOLD_FOR_MS for told in self._told.values()]
        if not ends:
            return None
        return max(0.001, min(_LONGEST_NAP_S, (min(ends) - self._clock.now_ms()) / 1000))


def count(miss: Miss) -> tuple[int, int]:
    """Give how many slots were missed (``MOST_COUNTED`` means at least so many), and the first."""
    if miss.slot_ms is not None:
        return 1, miss.slot_ms
    number, first = 0, miss.seen_ms
    for slot in miss.schedule.before(miss.seen_ms):
        if slot <= miss.after_ms or number == MOST_COUNTED:
            break
        if miss.seen_ms - miss.schedule.due(miss.task_id, slot) > GRACE_MS:
            number, first = number + 1, slot
    if number == MOST_COUNTED:
        first = miss.schedule.after(miss.after_ms) or first
    return max(1, number), first

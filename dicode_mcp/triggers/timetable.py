"""All cron tasks in force and when each is due next: one heap, not one timer per task.

State without a loop or a clock of its own; whoever asks says what time it is.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import lru_cache
from zoneinfo import ZoneInfo

from dicode_mcp.runs.limits import Overlap, policy_of
from dicode_mcp.runs.model import Trigger
from dicode_mcp.spec.model import Task
from dicode_mcp.triggers.catchup import Catchup, Settlement, settle
from dicode_mcp.triggers.schedule import Schedule

_SPARE_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cron task asks for. ``overlap``: what happens to a slot while runs are on."""

    task_id: str
    schedule: Schedule
    catchup: Catchup = "one"
    overlap: Overlap = "skip"

    def same_slots(self, other: Plan) -> bool:
        """Tell whether both name the same slots."""
        mine, theirs = self.schedule, other.schedule
        return (mine.expression, mine.zone) == (theirs.expression, theirs.zone)


def plan_of(task: Task, default_zone: ZoneInfo) -> Plan | None:
    """Read a task's plan; None when cron does not start it."""
    trigger = task.spec.trigger
    if trigger.cron is None:
        return None
    zone = _zone(trigger.timezone) if trigger.timezone else default_zone
    return Plan(
        task.id,
        Schedule(trigger.cron, zone, trigger.jitter or 0.0),
        trigger.catchup,
        policy_of(task.spec.concurrency, Trigger.CRON).overlap,
    )


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@dataclass(slots=True)
class _Row:
    plan: Plan
    last_ms: int
    due_ms: int | None


class Timetable:
    """The plans in force, each with the last slot dealt with and the next moment of interest."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._rows

    def task_ids(self) -> list[str]:
        """Give the tasks that have a plan."""
        return list(self._rows)

    def plan(self, task_id: str) -> Plan | None:
        """Give a task's plan."""
        row = self._rows.get(task_id)
        return row.plan if row else None

    def last_ms(self, task_id: str) -> int | None:
        """Give the instant up to which a task's slots are dealt with."""
        row = self._rows.get(task_id)
        return row.last_ms if row else None

    def due_ms(self, task_id: str) -> int | None:
        """Give when a task is due next."""
        row = self._rows.get(task_id)
        return row.due_ms if row else None

    def put(self, plan: Plan, last_ms: int) -> None:
        """Take a plan in, or replace it; ``last_ms`` is up to when its slots are dealt with."""
        self._rows[plan.task_id] = _Row(plan, last_ms, None)
        self._schedule(plan.task_id)

    def drop(self, task_id: str) -> bool:
        """Take a plan out; tells whether it was there."""
        return self._rows.pop(task_id, None) is not None

    def settle(self, task_id: str, now_ms: int) -> Settlement:
        """Decide on the slots of a task that are due; changes nothing."""
        row = self._rows[task_id]
        return settle(
            row.plan.schedule,
            task_id,
            last_ms=row.last_ms,
            now_ms=now_ms,
            catchup=row.plan.catchup,
        )

    def dealt_with(self, task_id: str, upto_ms: int | None) -> None:
        """Go on to the next slot, after ``upto_ms`` if that is later than the last."""
        row = self._rows.get(task_id)
        if row is None:
            return
        if upto_ms is not None:
            row.last_ms = max(row.last_ms, upto_ms)
        self._schedule(task_id)

    def again(self, task_id: str, at_ms: int) -> None:
        """Ask for a task at a moment of the caller's."""
        if task_id in self._rows:
            self._set_due(task_id, at_ms)

    def turn_back(self, now_ms: int) -> None:
        """Follow a wall clock that was put back: nothing after ``now_ms`` counts as dealt with.

        What already ran is known by its row, which is unique for task and slot.
        """
        for task_id, row in self._rows.items():
            row.last_ms = min(row.last_ms, now_ms)
            self._schedule(task_id)

    def pop_due(self, now_ms: int) -> list[str]:
        """Take out the tasks that are due; each comes back by ``dealt_with`` or ``again``."""
        due: list[str] = []
        while self._heap and self._heap[0][0] <= now_ms:
            at, task_id = heapq.heappop(self._heap)
            row = self._rows.get(task_id)
            if row is not None and row.due_ms == at:
                row.due_ms = None
                due.append(task_id)
        return due

    def next_due_ms(self) -> int | None:
        """Give when the next task is due."""
        while self._heap:
            at, task_id = self._heap[0]
            row = self._rows.get(task_id)
            if row is not None and row.due_ms == at:
                return at
            heapq.heappop(self._heap)
        return None

    def _schedule(self, task_id: str) -> None:
        row = self._rows[task_id]
        slot = row.plan.schedule.after(row.last_ms)
        self._set_due(task_id, None if slot is None else row.plan.schedule.due(task_id, slot))

    def _set_due(self, task_id: str, due_ms: int | None) -> None:
        row = self._rows[task_id]
        if row.due_ms == due_ms:
            return
        row.due_ms = due_ms
        if due_ms is not None:
            heapq.heappush(self._heap, (due_ms, task_id))
        if len(self._heap) > 2 * len(self._rows) + _SPARE_ENTRIES:
            self._heap = [(r.due_ms, i) for i, r in self._rows.items() if r.due_ms is not None]
            heapq.heapify(self._heap)

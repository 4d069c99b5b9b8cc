"""What tasks with a budget have spent today, and the condition of those that have spent it all.

Figures in memory follow what the store commits: they are taken before a start is written and given
back when it fails, so that two starts at once cannot both get the last run of a day.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from dicode_mcp.clock import Clock, iso
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import DicodeError
from dicode_mcp.events import EventBus, Subscription, TasksChanged
from dicode_mcp.protocols import Store
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs import budget as rules
from dicode_mcp.runs.budget import DaySpent, Line
from dicode_mcp.runs.model import Outcome, Run, RunError
from dicode_mcp.spec.model import Task

log = logging.getLogger("dicode.budgets")

OWNER = "budget"

_KEPT_DAYS = 2
"""Days before today that are remembered: zones are up to a day apart, and clocks are put back."""
_LONGEST_NAP_S = 60.0
"""How soon a jump of the wall clock over midnight is noticed at the latest."""


@dataclass(frozen=True, slots=True)
class Today:
    """A task's budget today."""

    day: str
    resets_ms: int
    lines: tuple[Line, ...]

    @property
    def reached(self) -> list[Line]:
        """Give the lines of which nothing is left."""
        return [line for line in self.lines if line.reached]


class Budgets:
    """Counts for tasks that declare a budget. ``zone`` is for tasks that name none of their own."""

    def __init__(self, registry: Registry, store: Store, clock: Clock, zone: ZoneInfo) -> None:
        self._registry = registry
        self._store = store
        self._clock = clock
        self._zone = zone
        self._spent: dict[tuple[str, str], DaySpent] = {}
        self._tokens: dict[str, int] = {}
        """By run that is on: tokens reported since it was started."""
        self._told: dict[str, str] = {}
        """By task: the message of its condition."""

    async def load(self) -> None:
        """Read what was spent before a restart. Call once, before anything is submitted."""
        for spent in await self._store.spending(since_day=self._oldest()):
            key = (spent.task_id, spent.day)
            # Added, not set: a webhook may have come first.
            self._spent[key] = self._spent.get(key, DaySpent(*key)).plus(spent)
        self.show(task_id for task_id, _ in list(self._spent))

    # ── Asking ──

    def today(self, task: Task) -> Today | None:
        """Give how a task stands today; None without a budget."""
        budget = task.spec.budget
        if budget is None:
            return None
        now, zone = self._clock.now_ms(), self._zone_of(task)
        day = rules.day_of(now, zone)
        spent = self._spent.get((task.id, day), DaySpent(task.id, day))
        return Today(day, rules.next_day_ms(now, zone), tuple(rules.lines(budget, spent)))

    def refusal(self, entry: Entry | None) -> RunError | None:
        """Say why a run of a task may not start today, or let it."""
        task = entry.task if entry else None
        today = self.today(task) if task else None
        if task is None or today is None or not today.reached:
            return None
        return rules.spent_error(task.id, today.reached, today.day, today.resets_ms)

    def view(self, task: Task) -> dict[str, Any] | None:
        """Show how a task stands today: each line as ``{spent, limit}``, and when it ends."""
        today = self.today(task)
        if today is None:
            return None
        shown = {line.what: {"spent": line.spent, "limit": line.limit} for line in today.lines}
        return {"day": today.day, "resets_at": iso(today.resets_ms), **shown}

    # ── Counting ──

    @contextmanager
    def beginning(self, task: Task | None) -> Generator[DaySpent | None]:
        """Take a run out of the budget while its start is stored; give it back when that fails.

        Gives what is to be stored with the start.
        """
        spent = None
        if task is not None and task.spec.budget is not None:
            spent = DaySpent(task.id, self._day(task), runs=1)
        self.add(spent)
        try:
            yield spent
        except BaseException:
            self._take_back(spent)
            raise

    def end(self, run: Run, outcome: Outcome) -> DaySpent | None:
        """Give what is to be stored with a run's end: the processor time of all its starts."""
        cpu_ms = (run.cpu_ms or 0) + (outcome.cpu_ms or 0)
        task = self._task(run.task_id)
        if not cpu_ms or task is None or task.spec.budget is None:
            return None
        return DaySpent(task.id, self._day(task), cpu_ms=cpu_ms)

    def add(self, spent: DaySpent | None) -> None:
        """Count what is stored, or is about to be."""
        if spent is not None:
            key = (spent.task_id, spent.day)
            self._spent[key] = self._spent.get(key, DaySpent(*key)).plus(spent)
            self.show([spent.task_id])

    def _take_back(self, spent: DaySpent | None) -> None:
        if spent is not None:
            key = (spent.task_id, spent.day)
            self._spent[key] = self._spent[key].minus(spent)
            self.show([spent.task_id])

    def forget(self, run_id: str) -> None:
        """Drop what is known of a run that is no longer on."""
        self._tokens.pop(run_id, None)

    def tokens_of(self, run_id: str) -> int | None:
        """Give the tokens that a run reported since it was started."""
        return self._tokens.get(run_id)

    async def use(self, run: Run, tokens: int) -> dict[str, Any]:
        """Keep tokens that a run reports: ``{tokens, left}``, its own sum and the day's rest.

        ``left`` is None without a limit. A run that is on is not ended for what it spends.
        """
        total = self._tokens.get(run.id, 0) + tokens
        task = self._task(run.task_id)
        spent = None
        if task is not None and task.spec.budget is not None:
            spent = DaySpent(task.id, self._day(task), tokens=tokens)
        self._tokens[run.id] = total
        self.add(spent)
        try:
            await self._store.note_tokens(run.id, (run.tokens or 0) + total, spent)
        except DicodeError:
            self._tokens[run.id] -= tokens
            self._take_back(spent)
            raise
        return {"tokens": (run.tokens or 0) + total, "left": self._left(task)}

    def _left(self, task: Task | None) -> int | None:
        today = self.today(task) if task else None
        of_tokens = [line for line in today.lines if line.what == "tokens"] if today else []
        return max(0, round(of_tokens[0].limit - of_tokens[0].spent)) if of_tokens else None

    # ── Telling ──

    def show(self, task_ids: Iterable[str]) -> None:
        """Bring the conditions of tasks in line with what they have spent."""
        for task_id in dict.fromkeys(task_ids):
            task = self._task(task_id)
            today = self.today(task) if task else None
            message = None
            if today is not None and today.reached:
                message = rules.told(today.reached, today.day, today.resets_ms)
                message += f"; {rules.hint(task_id, today.reached)}"
            self._tell(task_id, message, today)

    def _tell(self, task_id: str, message: str | None, today: Today | None) -> None:
        before = self._told.get(task_id)
        if message == before:
            return
        if message is None or today is None:
            del self._told[task_id]
            self._registry.set_conditions(task_id, OWNER, ())
            log.info("a task's budget is open again", extra={"task_id": task_id})
            return
        self._told[task_id] = message
        reason = "".join(word.capitalize() for word in today.reached[0].what.split("_"))
        condition = Condition(ConditionType.BUDGET_REACHED, True, f"{reason}Spent", message)
        self._registry.set_conditions(task_id, OWNER, (condition,))
        if before is None:
            spent = ", ".join(map(str, today.reached))
            log.warning("a task's budget is spent", extra={"task_id": task_id, "spent": spent})

    async def run(self, bus: EventBus) -> None:
        """Open budgets again when their day is over, and follow changed ones, until cancelled."""
        with bus.subscribe(kinds=(TasksChanged,)) as changes:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(changes))
                while True:
                    self.show(list(self._told))
                    await self._forget()
                    await self._clock.wait(asyncio.Event(), self._nap_s())

    async def _follow(self, changes: Subscription) -> None:
        lost = 0
        async for event in changes:
            if isinstance(event, TasksChanged):
                self.show(event.task_ids)
            if changes.lost != lost:
                lost = changes.lost
                self.show(entry.id for entry in self._registry.entries())

    def _nap_s(self) -> float:
        now = self._clock.now_ms()
        tasks = [task for task_id in self._told if (task := self._task(task_id)) is not None]
        ends = [rules.next_day_ms(now, self._zone_of(task)) for task in tasks]
        return min([_LONGEST_NAP_S, *((end - now) / 1000 for end in ends)])

    async def _forget(self) -> None:
        oldest = self._oldest()
        old = [key for key in self._spent if key[1] < oldest]
        if not old:
            return
        for key in old:
            del self._spent[key]
        try:
            await self._store.forget_spending(before_day=oldest)
        except DicodeError as error:
            log.warning("old spending could not be forgotten", extra={"code": error.code.value})

    def _task(self, task_id: str) -> Task | None:
        entry = self._registry.get(task_id)
        return entry.task if entry else None

    def _day(self, task: Task) -> str:
        return rules.day_of(self._clock.now_ms(), self._zone_of(task))

    def _zone_of(self, task: Task) -> ZoneInfo:
        named = task.spec.trigger.timezone
        return ZoneInfo(named) if named else self._zone

    def _oldest(self) -> str:
        today = date.fromisoformat(rules.day_of(self._clock.now_ms(), self._zone))
        return (today - timedelta(days=_KEPT_DAYS)).isoformat()

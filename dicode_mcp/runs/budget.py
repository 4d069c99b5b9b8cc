"""What a task may cost in a day: which day it is, whether it is spent, how that is told. Pure.

A day is a local date. Runs count when they start, processor time when they end, tokens when they
are reported; each on the day it is then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dicode_mcp.clock import iso
from dicode_mcp.runs.model import Reason, RunError
from dicode_mcp.spec.model import BudgetSpec


@dataclass(frozen=True, slots=True)
class DaySpent:
    """What a task spent on a day (``2026-05-01``), or what is to be added to it."""

    task_id: str
    day: str
    runs: int = 0
    cpu_ms: int = 0
    tokens: int = 0

    def plus(self, other: DaySpent) -> DaySpent:
        """Add what else was spent on the same day."""
        return replace(
            self,
            runs=self.runs + other.runs,
            cpu_ms=self.cpu_ms + other.cpu_ms,
            tokens=self.tokens + other.tokens,
        )

    def minus(self, other: DaySpent) -> DaySpent:
        """Take back what was not spent after all."""
        return self.plus(
            replace(other, runs=-other.runs, cpu_ms=-other.cpu_ms, tokens=-other.tokens)
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a budget: what, how much of it was spent, and the limit."""

    what: str
    spent: float
    limit: float

    @property
    def reached(self) -> bool:
        """Tell whether nothing is left."""
        return self.spent >= self.limit

    def __str__(self) -> str:
        return f"{self.what} {_number(self.spent)} of {_number(self.limit)}"


def day_of(now_ms: int, zone: ZoneInfo) -> str:
    """Give the local date."""
    return datetime.fromtimestamp(now_ms / 1000, tz=zone).date().isoformat()


def next_day_ms(now_ms: int, zone: ZoneInfo) -> int:
    """Give the instant at which the next local day begins."""
    today = datetime.fromtimestamp(now_ms / 1000, tz=zone).date()
    midnight = datetime.combine(today + timedelta(days=1), time(), tzinfo=zone)
    begins = round(midnight.astimezone(UTC).timestamp() * 1000)
    # Where clocks go back over midnight, the date returns for a while.
    return max(begins, now_ms + 1)


def lines(budget: BudgetSpec, spent: DaySpent) -> list[Line]:
    """Give the lines that a budget has."""
    every = (
        ("runs", spent.runs, budget.runs),
        ("cpu_seconds", spent.cpu_ms / 1000, budget.cpu_seconds),
        ("tokens", spent.tokens, budget.tokens),
    )
    return [Line(what, used, limit) for what, used, limit in every if limit is not None]


def told(reached: list[Line], day: str, resets_ms: int) -> str:
    """Say which lines of a budget are spent, and until when."""
    return (
        f"the budget of {day} is spent: {', '.join(map(str, reached))}; it begins anew at "
        f"{iso(resets_ms)}"
    )


def hint(task_id: str, reached: list[Line]) -> str:
    """Say how to go on before the day is over."""
    keys = " and ".join(f"budget.{line.what}" for line in reached)
    return f"to go on before that, raise {keys} in task.yaml of {task_id}, or with an override"


def spent_error(task_id: str, reached: list[Line], day: str, resets_ms: int) -> RunError:
    """Say that a run is skipped."""
    return RunError(
        Reason.BUDGET,
        f"task {task_id}: {told(reached, day, resets_ms)}",
        hint(task_id, reached),
    )


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")

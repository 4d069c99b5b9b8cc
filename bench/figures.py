"""What was measured and how it is judged. Pure: no clock, no process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

FEWEST_FOR_P99 = 20
"""Below so many samples a 99th percentile would only be the maximum under another name."""

Unit = Literal["ms", "s", "/s", "MB", "%"]
Subject = Literal["p50", "p99", "ratio"]


class Verdict(StrEnum):
    """How a result stands to its budget."""

    OK = "ok"
    OVER = "OVER"
    LATER = "later"
    """The budget does not apply to this build yet; the note says from when."""
    NONE = "-"
    """There is no budget: the result is there to explain others."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The middle and the bad end of ``n`` samples."""

    label: str
    unit: Unit
    n: int
    p50: float
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound of a budget, e.g. ``Limit("p50", "<=", 15)``."""

    subject: Subject
    sign: Literal["<=", ">="]
    bound: float

    def holds(self, result: Result) -> bool:
        """Tell whether ``result`` keeps it; a subject that was not measured does not."""
        value = result.value(self.subject)
        if value is None:
            return False
        return value <= self.bound if self.sign == "<=" else value >= self.bound

    def text(self, unit: Unit) -> str:
        """Give the bound as it is written in a table."""
        sign = "≤" if self.sign == "<=" else "≥"
        if self.subject == "ratio":
            return f"{sign} {self.bound:g} of the floor"
        return f"{self.subject} {sign} {show(self.bound, unit)}"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table."""

    name: str
    what: str
    ours: Figure
    floor: Figure | None = None
    limits: tuple[Limit, ...] = ()
    applies_from: str = ""
    """When the budget begins to count, if not now (``issue D``)."""
    notes: tuple[str, ...] = ()
    also: Mapping[str, float] = field(default_factory=dict[str, float])
    """Further figures by name, for the JSON and the notes; the name ends in the unit."""

    @property
    def ratio(self) -> float | None:
        """Our median over the floor's; None without a floor."""
        if self.floor is None or self.floor.p50 == 0:
            return None
        return self.ours.p50 / self.floor.p50

    @property
    def verdict(self) -> Verdict:
        """Judge the result: every limit must hold."""
        if not self.limits:
            return Verdict.NONE
        if self.applies_from:
            return Verdict.LATER
        return Verdict.OK if self.within else Verdict.OVER

    @property
    def within(self) -> bool:
        """Whether every limit holds, whether or not it applies yet."""
        return all(limit.holds(self) for limit in self.limits)

    @property
    def budget(self) -> str:
        """The limits in words."""
        return ", ".join(limit.text(self.ours.unit) for limit in self.limits)

    def value(self, subject: Subject) -> float | None:
        """Give what a limit speaks of."""
        match subject:
            case "p50":
                return self.ours.p50
            case "p99":
                return self.ours.p99
            case "ratio":
                return self.ratio


def percentile(samples: Sequence[float], percent: float) -> float:
    """Give the smallest sample that at least ``percent`` of all do not exceed (nearest rank)."""
    if not samples:
        raise ValueError("no samples")
    if not 0 < percent <= 100:
        raise ValueError("percent must be above 0 and at most 100")
    ordered = sorted(samples)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def median(samples: Sequence[float]) -> float:
    """Give the middle sample; of an even number the mean of the middle two."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2


def figure(label: str, unit: Unit, samples: Sequence[float]) -> Figure:
    """Sum up samples. With few of them there is no 99th percentile."""
    p99 = percentile(samples, 99) if len(samples) >= FEWEST_FOR_P99 else None
    return Figure(label, unit, len(samples), median(samples), p99)


def show(value: float, unit: Unit) -> str:
    """Write a value with its unit, in three significant digits or so."""
    if unit == "/s":
        return f"{value:,.0f}/s"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {unit}"

"""A cron expression as sets of numbers, matched against a wall clock that knows no zone.

Reading the text is croniter's work; searching is done here, because it must go both ways, be quick
for thousands of tasks, and never guess about daylight saving.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import cast

from croniter import croniter

_HORIZON_DAYS = 366 * 40
"""Every day that a calendar has comes up within this, 29 February of a weekday included."""
_MIDNIGHT = datetime.min.time()
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pattern:
    """The wall-clock minutes that an expression names."""

    times: tuple[int, ...]
    """Minutes since midnight, ascending."""
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """Both kinds of day are restricted: one that fits is enough (crontab(5))."""

    def next(self, local: datetime) -> datetime | None:
        """Give the first matching minute after the naive ``local``; None when there is none."""
        if self._has(local.date()):
            index = bisect_right(self.times, local.hour * 60 + local.minute)
            if index < len(self.times):
                return _at(local.date(), self.times[index])
        day = self._seek(local.date(), 1)
        return None if day is None else _at(day, self.times[0])

    def latest(self, local: datetime) -> datetime | None:
        """Give the last matching minute that is not after the naive ``local``."""
        if self._has(local.date()):
            index = bisect_left(self.times, local.hour * 60 + local.minute + 1)
            if index:
                return _at(local.date(), self.times[index - 1])
        day = self._seek(local.date(), -1)
        return None if day is None else _at(day, self.times[-1])

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date or by_weekday if self.either_day else by_date and by_weekday

    def _seek(self, day: date, step: int) -> date | None:
        """Give the nearest matching day before or after ``day``, leaping over other months."""
        for _ in range(_HORIZON_DAYS):
            try:
                day = day + step * _DAY
                if day.month not in self.months:
                    day = _month_edge(day, step)
            except (OverflowError, ValueError):
                return None
            if self._has(day):
                return day
        return None


def _month_edge(day: date, step: int) -> date:
    """Give the day of this month after which, going on by ``step``, the next month comes."""
    first = day.replace(day=1)
    return first if step < 0 else (first + timedelta(days=32)).replace(day=1) - _DAY


def _at(day: date, minute: int) -> datetime:
    return datetime.combine(day, _MIDNIGHT) + timedelta(minutes=minute)


@lru_cache(maxsize=4096)
def read_pattern(expression: str) -> Pattern:
    """Read five fields or one of the ``@`` names. Raises ``ValueError``."""
    expanded = cast("list[list[int | str]]", croniter.expand(expression)[0])
    minutes, hours, days, months, weekdays = expanded
    fields = expression.split()
    return Pattern(
        times=tuple(
            hour * 60 + minute
            for hour in _numbers(hours, range(24))
            for minute in _numbers(minutes, range(60))
        ),
        days=frozenset(_numbers(days, range(1, 32))),
        months=frozenset(_numbers(months, range(1, 13))),
        weekdays=frozenset(_numbers(weekdays, range(7))),
        either_day=len(fields) == 5 and not (_starred(fields[2]) or _starred(fields[4])),
    )


def _starred(field: str) -> bool:
    return field.startswith(("*", "?"))


def _numbers(field: list[int | str], every: range) -> list[int]:
    if "*" in field:
        return list(every)
    return sorted(int(number) for number in field)

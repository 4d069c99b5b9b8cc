"""What is kept of runs by task and UTC day when the runs themselves are gone. Pure.

A run counts on the day it ended; one that was over before it began counts too. A budget that has
to know of runs that are still on needs a count of its own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

from dicode_mcp.runs.model import Run, RunStatus

DAY_MS = 24 * 3600 * 1000
FAILED = frozenset({RunStatus.FAILURE, RunStatus.TIMEOUT, RunStatus.LOST})
"""The ends that count as failures: neither a wish (cancelled) nor a rule (skipped)."""
ENDED = tuple(status for status in RunStatus if status.ended)

_GROWTH = 1.1
"""Each bucket reaches a tenth further than the one before, so its middle is within 5 %."""
_LOG_GROWTH = math.log(_GROWTH)
_LAST_BUCKET = 260
"""Reaches beyond a century."""


def day_of(ms: int) -> int:
    """Give the UTC day of a time, in days since 1970-01-01."""
    return ms // DAY_MS


def bucket_of(ms: int) -> int:
    """Give the bucket of a duration: 0 for none, else by its logarithm."""
    if ms < 1:
        return 0
    return min(_LAST_BUCKET, 1 + math.floor(math.log(ms) / _LOG_GROWTH))


def _middle_of(bucket: int) -> int:
    return 0 if bucket == 0 else round(_GROWTH ** (bucket - 0.5))


@dataclass(frozen=True, slots=True)
class Durations:
    """How often runs lasted how long: a histogram with fixed buckets, so that two can be added."""

    counts: Mapping[int, int] = field(default_factory=dict[int, int])

    def plus(self, other: Durations) -> Durations:
        """Give both together."""
        if not self.counts:
            return other
        together = dict(self.counts)
        for bucket, number in other.counts.items():
            together[bucket] = together.get(bucket, 0) + number
        return Durations(together)

    def quantile(self, share: float) -> int | None:
        """Give the ms that ``share`` (0 to 1) of the runs did not exceed, within 5 %.

        None when nothing was measured.
        """
        total = sum(self.counts.values())
        if not total:
            return None
        left = max(1, math.ceil(share * total))
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return _middle_of(bucket)
        return None

    def to_bytes(self) -> bytes:
        """Write it as JSON: bucket, count, bucket, count …"""
        flat = [part for pair in sorted(self.counts.items()) for part in pair]
        return json.dumps(flat, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_bytes(cls, body: bytes) -> Durations:
        """Read what ``to_bytes`` wrote."""
        flat: list[int] = json.loads(body)
        return cls(dict(zip(flat[::2], flat[1::2], strict=True)))


def durations_of(lasted_ms: Iterable[int]) -> Durations:
    """Count durations into buckets."""
    return Durations(Counter(bucket_of(ms) for ms in lasted_ms))


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over runs that ended. Times are ms; ``durations`` has the runs that had begun."""

    by_status: Mapping[RunStatus, int] = field(default_factory=dict[RunStatus, int])
    duration_ms: int = 0
    cpu_ms: int = 0
    tokens: int = 0
    durations: Durations = Durations()

    @property
    def runs(self) -> int:
        """How many there were."""
        return sum(self.by_status.values())

    @property
    def failures(self) -> int:
        """How many ended as ``FAILED`` has it."""
        return sum(n for status, n in self.by_status.items() if status in FAILED)

    def plus(self, other: Tally) -> Tally:
        """Give both together."""
        by_status = dict(self.by_status)
        for status, number in other.by_status.items():
            by_status[status] = by_status.get(status, 0) + number
        return Tally(
            by_status,
            self.duration_ms + other.duration_ms,
            self.cpu_ms + other.cpu_ms,
            self.tokens + other.tokens,
            self.durations.plus(other.durations),
        )


def tally_of(run: Run) -> Tally:
    """Give the tally of one run that has ended."""
    lasted = run.duration_ms
    return Tally(
        {run.status: 1},
        lasted or 0,
        run.cpu_ms or 0,
        run.tokens or 0,
        Durations() if lasted is None else durations_of([lasted]),
    )


def together(tallies: Iterable[Tally]) -> Tally:
    """Add tallies up."""
    return reduce(Tally.plus, tallies, Tally())


@dataclass(frozen=True, slots=True)
class TaskDay:
    """The runs of one task that ended on one UTC day (days since 1970-01-01)."""

    task_id: str
    day: int
    tally: Tally

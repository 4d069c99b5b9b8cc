"""When a task is due: cron slots in a time zone, as instants. Pure.

A slot is the instant of a matching wall-clock minute, in epoch milliseconds. Daylight saving (SPEC
3.3): a wall-clock time that is skipped becomes the first instant after the gap, one that is
repeated is its first occurrence only. The search runs on a wall clock without a zone, and each hit
is then mapped to its instant; that mapping never goes back, so neither do the slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from dicode_mcp.triggers.pattern import Pattern, read_pattern

_MAX_MS = 253_000_000_000_000
"""In the year 9987: what the calendar can hold with room for any offset."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The slots of one expression in one zone. ``jitter_s`` bounds the delay after a slot."""

    expression: str
    zone: ZoneInfo
    jitter_s: float = 0.0

    def after(self, instant_ms: int) -> int | None:
        """Give the first slot after an instant; None when there is none."""
        pattern = self._pattern
        local = pattern.next(self._local(instant_ms))
        while local is not None:
            slot = self._instant(local)
            if slot > instant_ms:
                return slot if slot < _MAX_MS else None
            local = pattern.next(local)
        return None

    def latest(self, instant_ms: int) -> int | None:
        """Give the last slot that is not after an instant."""
        return next(self.before(instant_ms), None)

    def before(self, instant_ms: int) -> Iterator[int]:
        """Give the slots that are not after an instant, newest first, each once."""
        pattern = self._pattern
        local = pattern.latest(self._furthest(instant_ms))
        newest = instant_ms + 1
        while local is not None:
            slot = self._instant(local)
            if slot < newest:
                newest = slot
                yield slot
            try:
                local = pattern.latest(local - timedelta(minutes=1))
            except OverflowError:
                return

    def due(self, task_id: str, slot_ms: int) -> int:
        """Give when a task starts for a slot: a fixed delay within the jitter, before the next.

        The delay depends on task and slot alone, so every server and every restart agree on it.
        """
        if self.jitter_s <= 0:
            return slot_ms
        room = round(self.jitter_s * 1000)
        following = self.after(slot_ms)
        if following is not None:
            room = min(room, following - slot_ms - 1)
        digest = hashlib.blake2b(f"{slot_ms} {task_id}".encode(), digest_size=8).digest()
        return slot_ms + int.from_bytes(digest, "big") % (room + 1)

    @property
    def _pattern(self) -> Pattern:
        return read_pattern(self.expression)

    def _local(self, instant_ms: int) -> datetime:
        return _wall(instant_ms // 1000, self.zone).replace(tzinfo=None, fold=0)

    def _furthest(self, instant_ms: int) -> datetime:
        """Give the furthest wall-clock time that had been shown by an instant."""
        wall = _wall(instant_ms // 1000, self.zone)
        local = wall.replace(tzinfo=None, fold=0)
        if not wall.fold:
            return local
        return local + (_offset(wall.replace(fold=0)) - _offset(wall))

    def _instant(self, local: datetime) -> int:
        """Map a naive wall-clock time to its first instant, or to the end of the gap it is in."""
        aware = local.replace(tzinfo=self.zone)
        seconds = _seconds(local - _offset(aware))
        if _wall(seconds, self.zone).replace(tzinfo=None, fold=0) == local:
            return seconds * 1000
        return 1000 * self._gap_end(
            _seconds(local - _offset(aware.replace(fold=1))), seconds, _offset(aware)
        )

    def _gap_end(self, low: int, high: int, before: timedelta) -> int:
        """Find the second in (low, high] from which the offset is no longer ``before``."""
        while high - low > 1:
            middle = (low + high) // 2
            if _offset(_wall(middle, self.zone)) == before:
                low = middle
            else:
                high = middle
        return high


def _wall(seconds: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(seconds, tz=zone)


def _seconds(utc: datetime) -> int:
    return int(utc.replace(tzinfo=UTC).timestamp())


def _offset(aware: datetime) -> timedelta:
    return aware.utcoffset() or timedelta(0)

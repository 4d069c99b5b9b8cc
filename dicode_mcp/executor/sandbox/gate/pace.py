"""How often something may be done: a burst, then so many a second. Pure but for the time given."""

from __future__ import annotations


class Pace:
    """Counts what was done. ``rate`` is a second's worth."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> None:
        """Count one."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
        self._at = now

    @property
    def rest(self) -> float:
        """How many seconds to wait before the next; 0 for none."""
        return 0.0 if self._left >= 1 else min(1.0, (self._burst / 4 - self._left) / self._rate)

"""A clock that moves only when a test moves it. It wakes nobody."""

from __future__ import annotations

START_MS = 1_767_225_600_000
"""2026-01-01T00:00Z."""


class FakeClock:
    """A ``Clock`` under the test's hand."""

    def __init__(self, now_ms: int = START_MS, monotonic: float = 1_000.0) -> None:
        self._now_ms = now_ms
        self._monotonic = monotonic

    def now_ms(self) -> int:
        """Read the wall clock."""
        return self._now_ms

    def monotonic(self) -> float:
        """Read the monotonic clock."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks; ``seconds`` is not negative."""
        if seconds < 0:
            raise ValueError("time passes forward; set_wall moves the wall clock alone")
        self._now_ms += round(seconds * 1000)
        self._monotonic += seconds

    def set_wall(self, now_ms: int) -> None:
        """Set the wall clock alone, as an operator or NTP does."""
        self._now_ms = now_ms

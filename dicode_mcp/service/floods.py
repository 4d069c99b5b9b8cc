"""How many refusals are written down one by one: anybody may be refused, as often as he likes.

What is more than that is counted, and told as one entry.
"""

from __future__ import annotations

from collections import Counter

WINDOW_S = 60.0
EACH = 10
"""Refusals of one caller in a window that are entries of their own."""
ALL = 60
"""The same, of all callers together."""


class Floods:
    """Decides which refusals are entries; ``now`` is monotonic seconds."""

    def __init__(self, *, each: int = EACH, total: int = ALL, window_s: float = WINDOW_S) -> None:
        self._each = each
        self._total = total
        self._window_s = window_s
        self._until = float("-inf")
        self._taken: Counter[str] = Counter()
        self._left_out = 0

    def admits(self, caller: str, now: float) -> bool:
        """Tell whether a refusal of ``caller`` is written down; else it is counted."""
        if now >= self._until:
            self._until = now + self._window_s
            self._taken.clear()
        if self._taken.total() >= self._total or self._taken[caller] >= self._each:
            self._left_out += 1
            return False
        self._taken[caller] += 1
        return True

    def left_out(self) -> int:
        """Give how many were not written down since this was asked last."""
        count, self._left_out = self._left_out, 0
        return count

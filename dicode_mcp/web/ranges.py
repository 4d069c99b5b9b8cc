"""The ``Range`` header of one range of bytes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True, slots=True)
class Range:
    """``size`` bytes from ``start``; none: what was asked for lies behind the end."""

    start: int
    size: int

    def header(self, total: int) -> str:
        """Write ``Content-Range``."""
        if not self.size:
            return f"bytes */{total}"
        return f"bytes {self.start}-{self.start + self.size - 1}/{total}"


def asked_range(header: str | None, total: int) -> Range | None:
    """Give the range asked for; None for none, several, or what is no range: send all then."""
    found = _ONE.fullmatch(header.replace(" ", "")) if header else None
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:
        size = min(int(found[2]), total)
        return Range(total - size, size)
    first = int(found[1])
    last = min(int(found[2]), total - 1) if found[2] else total - 1
    if found[2] and int(found[2]) < first:
        return None
    return Range(first, max(0, last - first + 1))

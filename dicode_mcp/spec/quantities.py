"""Durations and sizes: their text, read and written. Pure; errors are ``ValueError`` sentences."""

from __future__ import annotations

import re
from decimal import Decimal

_SECONDS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d)")
_BARE = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
MAX_SECONDS = 100 * 365 * 86400
"""The longest duration read: a hundred years."""

_BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    **_BINARY,
    **_DECIMAL,
    **{name.removesuffix("B"): factor for name, factor in _BINARY.items()},
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
MAX_SIZE = 2**60

DURATION_FORM = "a duration such as 90s, 1h30m, 500ms, 7d, or a number of seconds"
SIZE_FORM = "a size such as 256MiB, 1GB, or a number of bytes"


def parse_duration(value: object) -> float:
    """Read a Go-style duration (also ``d``); a bare number is seconds. Gives seconds.

    Raises ``ValueError`` for anything else, negative values and booleans included.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"must be {DURATION_FORM}")
    seconds = _duration_text(value) if isinstance(value, str) else value
    if not seconds <= MAX_SECONDS:
        raise ValueError("is longer than a hundred years")
    if seconds < 0:
        raise ValueError("must not be negative")
    return float(seconds)


def _duration_text(text: str) -> float:
    if len(text) > 64:
        raise ValueError(f"must be {DURATION_FORM}")
    if text.startswith("-"):
        raise ValueError("must not be negative")
    body = text.removeprefix("+")
    if _BARE.fullmatch(body):
        return float(body)
    total, end = Decimal(0), 0
    for part in _PART.finditer(body):
        if part.start() != end:
            break
        total += Decimal(part.group(1)) * _SECONDS[part.group(2)]
        end = part.end()
    if not end or end != len(body):
        raise ValueError(f"must be {DURATION_FORM}")
    return float(total)


def format_duration(seconds: float) -> str:
    """Write seconds as Go does: ``1h30m0s``, ``1m0s``, ``1.5s``, ``500ms``, ``0s``.

    Exact to the nanosecond, so ``parse_duration`` gives the same seconds back.
    """
    nanos = round(Decimal(repr(float(seconds))) * 10**9)
    sign = "-" if nanos < 0 else ""
    nanos = abs(nanos)
    if nanos < 10**9:
        return sign + _below_a_second(nanos)
    whole, rest = divmod(nanos, 10**9)
    minutes, secs = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{secs}{_fraction(rest, 9)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _below_a_second(nanos: int) -> str:
    if nanos == 0:
        return "0s"
    for unit, digits in (("ms", 6), ("µs", 3), ("ns", 0)):
        whole, rest = divmod(nanos, 10**digits)
        if whole:
            return f"{whole}{_fraction(rest, digits)}{unit}"
    raise AssertionError("a positive whole number of nanoseconds has a unit")


def _fraction(rest: int, digits: int) -> str:
    return f".{rest:0{digits}d}".rstrip("0") if rest else ""


def parse_size(value: object) -> int:
    """Read ``256MiB``, ``1GB`` (or ``256Mi``); a bare number is bytes. Gives bytes.

    Raises ``ValueError`` for anything else; ``512M`` is refused because tools disagree on it.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"must be {SIZE_FORM}")
    size = _size_text(value) if isinstance(value, str) else value
    if not 0 <= size <= MAX_SIZE:
        raise ValueError("must be between 0 and 1024 PiB")
    if size != int(size):
        raise ValueError("must be a whole number of bytes")
    return int(size)


def _size_text(text: str) -> Decimal:
    found = _SIZE.fullmatch(text) if len(text) <= 64 else None
    if found is None:
        raise ValueError(f"must be {SIZE_FORM}")
    number, unit = found.groups()
    if unit in _UNITS:
        return Decimal(number) * _UNITS[unit]
    letter = unit.upper()
    if letter in ("K", "M", "G", "T"):
        raise ValueError(
            f"is not clear: write {number}{letter}iB (powers of 1024, what docker means) "
            f"or {number}{letter}B (powers of 1000)"
        )
    raise ValueError(f"has an unknown unit; write {SIZE_FORM}")


def format_size(size: int) -> str:
    """Write bytes with the largest unit that divides them; ``parse_size`` reads it back."""
    for units in (_BINARY, _DECIMAL):
        for unit, factor in reversed(units.items()):
            if size and size % factor == 0:
                return f"{size // factor}{unit}"
    return f"{size}B"

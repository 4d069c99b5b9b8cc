"""Text for people: columns, relative times, colour where a terminal shows it.

Knows the width of the terminal and nothing of the server. What a task wrote is shown with its
control characters made visible, so that no task can move the reader's cursor.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from dicode_mcp.clock import Clock, parse_iso

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Terminal(NamedTuple):
    """Where a command writes. ``width`` is None when nobody looks (a pipe or a file)."""

    out: TextIO
    err: TextIO
    clock: Clock
    width: int | None = None
    colour: bool = False

    def say(self, text: str = "") -> None:
        """Write a line of the result."""
        self.out.write(text + "\n")

    def note(self, text: str) -> None:
        """Write a line about the result, beside it."""
        self.err.write(text + "\n")

    def show_json(self, value: Any) -> None:
        """Write a value as it is, indented for a person and compact for a pipe."""
        indent = 2 if self.width is not None else None
        self.out.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")

    def style(self, text: str, style: str) -> str:
        """Give ``text`` in a style, where colours are wanted."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour else text


def open_terminal(out: TextIO, err: TextIO, env: Mapping[str, str], clock: Clock) -> Terminal:
    """Look at ``out`` and the environment: width, and whether colours are wanted."""
    width = _width(out, env)
    colour = width is not None and "NO_COLOR" not in env and env.get("TERM") != "dumb"
    return Terminal(out, err, clock, width, colour)


def _width(out: TextIO, env: Mapping[str, str]) -> int | None:
    if not out.isatty():
        return None
    columns = env.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def clean(text: str) -> str:
    """Make control characters visible and drop colours; line ends and tabs stay."""
    return _CONTROL.sub(_visible, _ANSI.sub("", text))


def _visible(match: re.Match[str]) -> str:
    number = ord(match.group())
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def one_line(text: str) -> str:
    """Fold a text into one clean line."""
    return clean(" ".join(text.split()))


def cells(text: str) -> int:
    """Count the columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    # Only for text beyond ASCII: the import costs more than a table.
    from unicodedata import combining, east_asian_width

    return sum(
        0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )


def fit(text: str, width: int) -> str:
    """Cut ``text`` to ``width`` columns, with a mark where something is missing."""
    if cells(text) <= width:
        return text
    kept = ""
    for char in text:
        if cells(kept + char) > max(0, width - 1):
            break
        kept += char
    return kept + "…"


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    *,
    flexible: int = -1,
) -> list[str]:
    """Lay out rows in columns two spaces apart.

    With a ``width``, the ``flexible`` column gives way first, down to 12 columns; then lines are
    cut. Without one nothing is cut, since a program may read it.
    """
    clean_rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(cells(line[i]) for line in [list(headers), *clean_rows]) for i in _each(headers)]
    if width is not None:
        over = sum(widths) + 2 * (len(widths) - 1) - width
        index = flexible % len(widths)
        widths[index] = max(min(12, widths[index]), widths[index] - max(0, over))
    lines = [_row(line, widths) for line in [list(headers), *clean_rows]]
    return lines if width is None else [fit(line, width) for line in lines]


def _each(headers: Sequence[str]) -> range:
    return range(len(headers))


def _row(line: Sequence[str], widths: Sequence[int]) -> str:
    padded = [fit(cell, w) for cell, w in zip(line, widths, strict=True)]
    return "  ".join(
        cell + " " * (w - cells(cell)) for cell, w in zip(padded, widths, strict=True)
    ).rstrip()


def duration(ms: float) -> str:
    """Write a span of time with the two units that matter."""
    if ms < 1000:
        return f"{round(ms)} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, below, lower in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{whole} s"


def relative(iso: Any, clock: Clock) -> str:
    """Write an ISO time as a distance from now: ``3 min ago``, ``in 2 h``; ``-`` for none."""
    if not isinstance(iso, str):
        return "-"
    try:
        difference = clock.now_ms() - parse_iso(iso)
    except ValueError:
        return iso
    if abs(difference) < 1000:
        return "now"
    rough = _rough(abs(difference) // 1000)
    return f"{rough} ago" if difference > 0 else f"in {rough}"


def _rough(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def clock_time(iso: Any) -> str:
    """Give the local wall-clock time of an ISO time, for log lines."""
    from datetime import UTC, datetime

    if not isinstance(iso, str):
        return "--:--:--.---"
    try:
        moment = datetime.fromtimestamp(parse_iso(iso) / 1000, tz=UTC).astimezone()
    except ValueError:
        return iso
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def facts(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """Write a JSON object as ``key: value`` lines, nested objects indented."""
    lines: list[str] = []
    for key, item in value.items():
        label = f"{indent}{key.replace('_', ' ')}"
        if isinstance(item, dict) and item:
            lines.append(f"{label}:")
            lines.extend(facts(item, indent + "  "))  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, str):
            lines.append(f"{label}: {one_line(item)}")
        else:
            lines.append(f"{label}: {json.dumps(item, ensure_ascii=False)}")
    return lines

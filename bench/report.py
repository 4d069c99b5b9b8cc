"""Results as a table for people and as JSON for programs. Knows nothing of how they came about."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, Result, show

WIDTH = 100
_HEADERS = ("ROW", "OURS p50", "p99", "FLOOR p50", "RATIO", "n", "BUDGET", "VERDICT")


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that could not be measured."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Setting:
    """Under which circumstances the run took place."""

    taken_at: str
    quick: bool
    python: str
    system: str
    cores: int
    load_before: float
    load_after: float = 0.0
    seconds: float = 0.0


def table(results: Sequence[Result]) -> str:
    """Write the results as aligned columns, then what was measured and the notes, row by row."""
    rows = [_HEADERS, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADERS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "─" * max(len(line) for line in lines))
    return "\n".join([*lines, "", *(line for result in results for line in _notes(result))])


def _cells(result: Result) -> tuple[str, ...]:
    ours, floor, ratio = result.ours, result.floor, result.ratio
    return (
        result.name,
        show(ours.p50, ours.unit),
        "-" if ours.p99 is None else show(ours.p99, ours.unit),
        "-" if floor is None else show(floor.p50, floor.unit),
        "-" if ratio is None else f"{ratio:.2f}",
        str(ours.n),
        result.budget or "-",
        result.verdict.value,
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    right = range(1, 6)
    padded = [
        cell.rjust(width) if column in right else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _notes(result: Result) -> list[str]:
    text = f"{result.name}: {result.what}"
    if result.floor is not None:
        text += f"; floor: {result.floor.label} (n {result.floor.n})"
    parts = [text, *result.notes]
    if result.applies_from:
        now = "already holds" if result.within else "is not met now"
        parts.append(f"the budget applies from {result.applies_from}; it {now}")
    return textwrap.wrap(". ".join(parts) + ".", WIDTH, subsequent_indent="    ")


def heading(setting: Setting) -> str:
    """Write the circumstances in one line."""
    mode = "quick run" if setting.quick else "full run"
    return (
        f"{mode}, {setting.cores} cores, load {setting.load_before:.1f} before and "
        f"{setting.load_after:.1f} after, Python {setting.python}, {setting.system}, "
        f"{setting.seconds:.0f} s"
    )


def document(
    setting: Setting, results: Sequence[Result], failed: Sequence[Failed]
) -> dict[str, Any]:
    """Give everything as JSON: ``{setting, rows: […], failed: […]}``."""
    return {
        "setting": {name: getattr(setting, name) for name in Setting.__dataclass_fields__},
        "rows": [_row(result) for result in results],
        "failed": [{"name": one.name, "why": one.why} for one in failed],
    }


def _row(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "what": result.what,
        "budget": result.budget,
        "ours": _figure(result.ours),
        "floor": None if result.floor is None else _figure(result.floor),
        "ratio": result.ratio,
        "verdict": result.verdict.value,
        "within": result.within if result.limits else None,
        "applies_from": result.applies_from or None,
        "also": dict(result.also),
        "notes": list(result.notes),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {name: getattr(figure, name) for name in Figure.__dataclass_fields__}

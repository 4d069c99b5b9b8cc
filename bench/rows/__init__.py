"""The rows that exist, in the order of DESIGN 6. A new one: a module here, a name in ``ALL``."""

from __future__ import annotations

from bench.row import Row
from bench.rows import (
    calls,
    command,
    cron,
    deno,
    gate,
    git,
    hooks,
    hostile,
    idle,
    logs,
    prune,
    reload,
    runs,
    start,
    table,
)

ALL: tuple[Row, ...] = (
    reload.ROW,
    git.ROW,
    runs.ROW,
    runs.THROUGHPUT,
    cron.ROW,
    deno.ROW,
    gate.ROW,
    calls.ROW,
    hooks.ROW,
    start.ROW,
    idle.ROW,
    command.ROW,
    table.ROW,
    prune.ROW,
    logs.ROW,
    hostile.ROW,
)


def select(names: list[str]) -> list[Row]:
    """Give the rows of these names, all without names. Raises ``KeyError`` with unknown ones."""
    known = {row.name: row for row in ALL}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(", ".join(unknown))
    return [row for row in ALL if not names or row.name in names]

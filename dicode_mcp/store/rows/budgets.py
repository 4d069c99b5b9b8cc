"""What tasks with a budget have spent, by local day."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from dicode_mcp.runs.budget import DaySpent
from dicode_mcp.store.prepared import Prepared
from dicode_mcp.store.tables import budget_days, runs

_COUNTED = ("runs", "cpu_ms", "tokens")
_ADD = Prepared(
    update(budget_days)
    .where(budget_days.c.task_id == bindparam("of_task"), budget_days.c.day == bindparam("of_day"))
    .values({name: budget_days.c[name] + bindparam(f"more_{name}") for name in _COUNTED})
)
_INSERT = Prepared(insert(budget_days))
_SINCE = select(*(budget_days.c[name] for name in ("task_id", "day", *_COUNTED))).where(
    budget_days.c.day >= bindparam("since")
)
_FORGET = delete(budget_days).where(budget_days.c.day < bindparam("before"))
_TOKENS = Prepared(
    update(runs).where(runs.c.id == bindparam("run_id")).values(tokens=bindparam("total"))
)


def add(connection: Connection, spent: DaySpent | None) -> None:
    """Add to what a task spent on a day."""
    if spent is None:
        return
    row = asdict(spent)
    more = {f"more_{name}": row[name] for name in _COUNTED}
    where = {"of_task": spent.task_id, "of_day": spent.day}
    if _ADD(connection, {**more, **where}).rowcount == 0:
        _INSERT(connection, row)


def note_tokens(connection: Connection, run_id: str, total: int, spent: DaySpent | None) -> None:
    """Keep the tokens of a run so far."""
    _TOKENS(connection, {"run_id": run_id, "total": total})
    add(connection, spent)


def since(connection: Connection, day: str) -> list[DaySpent]:
    """Give what was spent on a day and later ones."""
    return [DaySpent(*row) for row in connection.execute(_SINCE, {"since": day}).all()]


def forget(connection: Connection, before_day: str) -> int:
    """Delete what was spent before a day; gives how many rows."""
    return connection.execute(_FORGET, {"before": before_day}).rowcount

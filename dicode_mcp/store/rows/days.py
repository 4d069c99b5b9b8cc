"""Sums of runs by task and day: added to with each end, read for statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update

from dicode_mcp.protocols import DayPage, DayQuery
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.runs.statistics import ENDED, Durations, Tally, TaskDay, day_of, tally_of, together
from dicode_mcp.store.prepared import Prepared
from dicode_mcp.store.tables import run_days

_SUMS = ("duration_ms", "cpu_ms", "tokens")
_ADDED = (*(status.value for status in ENDED), *_SUMS)
_COLUMNS = (
    run_days.c.task_id,
    run_days.c.day,
    run_days.c.durations,
    *(run_days.c[name] for name in _ADDED),
)
_KEY = (run_days.c.task_id == bindparam("of_task"), run_days.c.day == bindparam("on_day"))
_DURATIONS = Prepared(select(run_days.c.durations).where(*_KEY))
_ADD = Prepared(
    update(run_days)
    .where(*_KEY)
    .values(
        durations=bindparam("new_durations"),
        **{name: run_days.c[name] + bindparam(f"more_{name}") for name in _ADDED},
    )
)
_INSERT = Prepared(insert(run_days))


def add(connection: Connection, run: Run) -> None:
    """Count a run that has ended. Right only while other writers are kept out."""
    if run.finished_at_ms is None:
        return
    tally, day = tally_of(run), day_of(run.finished_at_ms)
    numbers = _numbers(tally)
    known = _DURATIONS(connection, {"of_task": run.task_id, "on_day": day}).fetchone()
    if known is None:
        row = {"task_id": run.task_id, "day": day, "durations": tally.durations.to_bytes()}
        _INSERT(connection, {**row, **numbers})
        return
    durations = Durations.from_bytes(known[0]).plus(tally.durations).to_bytes()
    more = {f"more_{name}": number for name, number in numbers.items()}
    _ADD(
        connection,
        {"of_task": run.task_id, "on_day": day, "new_durations": durations, **more},
    )


def _numbers(tally: Tally) -> dict[str, int]:
    numbers = {status.value: tally.by_status.get(status, 0) for status in ENDED}
    return {**numbers, **{name: getattr(tally, name) for name in _SUMS}}


def page(connection: Connection, query: DayQuery) -> DayPage:
    """Give the newest days, then by task id, and the sums of all that match."""
    wanted = _wanted(query)
    statement = (
        select(*_COLUMNS)
        .where(*wanted)
        .order_by(run_days.c.day.desc(), run_days.c.task_id)
        .limit(max(query.limit, query.measured) + 1)
    )
    days = [_day_of(row) for row in connection.execute(statement).all()]
    more = len(days) > query.limit
    if len(days) <= query.measured:
        return DayPage(tuple(days[: query.limit]), together(d.tally for d in days), more)
    return DayPage(tuple(days[: query.limit]), _sums(connection, wanted), more)


def _sums(connection: Connection, wanted: Sequence[ColumnElement[bool]]) -> Tally:
    """Add up in the database, without the durations: there are too many days to read."""
    columns = [func.coalesce(func.sum(run_days.c[name]), 0).label(name) for name in _ADDED]
    row = connection.execute(select(*columns).where(*wanted)).mappings().one()
    return _tally({str(k): int(v) for k, v in row.items()}, Durations())


def _wanted(query: DayQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.task_ids is not None:
        wanted.append(run_days.c.task_id.in_(query.task_ids))
    if query.since_day is not None:
        wanted.append(run_days.c.day >= query.since_day)
    if query.until_day is not None:
        wanted.append(run_days.c.day <= query.until_day)
    return wanted


def _day_of(row: Sequence[Any]) -> TaskDay:
    numbers = dict(zip(_ADDED, (int(n) for n in row[3:]), strict=True))
    return TaskDay(row[0], int(row[1]), _tally(numbers, Durations.from_bytes(row[2])))


def _tally(numbers: Mapping[str, int], durations: Durations) -> Tally:
    by_status = {s: numbers[s.value] for s in RunStatus if numbers.get(s.value)}
    return Tally(by_status, numbers["duration_ms"], numbers["cpu_ms"], numbers["tokens"], durations)

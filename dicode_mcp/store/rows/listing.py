"""Rows of runs, many at a time: pages, the newest of each task, counts.

Every question is put so that one index answers it in order, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    case,
    func,
    select,
    tuple_,
    union_all,
)

from dicode_mcp.protocols import Page, RunQuery
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.store import codec
from dicode_mcp.store.prepared import Prepared
from dicode_mcp.store.rows.runs import ROW
from dicode_mcp.store.tables import run_values, runs

_NEWEST_OF_TASK = Prepared(
    select(*ROW)
    .where(runs.c.task_id == bindparam("task"))
    .order_by(runs.c.created_at_ms.desc(), runs.c.id.desc())
    .limit(1)
)
_COUNT = (
    select(func.count())
    .select_from(runs)
    .where(runs.c.status == bindparam("in_status"), runs.c.created_at_ms >= bindparam("since"))
)
_UNFINISHED = (
    select(*ROW)
    .where(runs.c.status.in_(sorted(s.value for s in RunStatus if not s.ended)))
    .order_by(runs.c.created_at_ms, runs.c.id)
)


def page(connection: Connection, query: RunQuery) -> Page[Run]:
    """Give a page of runs, newest first, in their listed form."""
    limit = codec.page_size(query.limit)
    if query.offset:
        after = _place_at(connection, query)
        if after is None:
            return Page(())
        query = replace(query, cursor=after, offset=0)
    rows: list[Sequence[Any]] = []
    for statement in _statements(query, limit + 1):
        rows.extend(connection.execute(statement).all())
    found = [codec.run_of(row) for row in rows]
    found.sort(key=lambda run: (run.created_at_ms, run.id), reverse=True)
    more = len(found) > limit
    items = tuple(found[:limit])
    return Page(items, codec.run_cursor(items[-1]) if more else None)


def _place_at(connection: Connection, query: RunQuery) -> str | None:
    """Give the cursor of the last of the runs that ``offset`` leaves out, by the index alone."""
    codec.check_offset(query.offset)
    places = [
        statement.with_only_columns(runs.c.created_at_ms, runs.c.id)
        for statement in _statements(query, query.offset)
    ]
    if len(places) == 1:
        found = connection.execute(places[0].limit(1).offset(query.offset - 1)).first()
    else:
        # Each in its own brackets: a part of a union has no order or limit of its own.
        every = union_all(*(select(place.subquery()) for place in places)).subquery()
        at, run_id = every.c
        merged = select(at, run_id).order_by(at.desc(), run_id.desc())
        found = connection.execute(merged.limit(1).offset(query.offset - 1)).first()
    return None if found is None else codec.place_cursor(found[0], found[1])


def matching(connection: Connection, query: RunQuery, at_most: int) -> int:
    """Count what a query finds, up to a bound."""
    number = 0
    for statement in _statements(replace(query, cursor=None), at_most):
        found = statement.with_only_columns(runs.c.id).order_by(None).limit(at_most - number)
        counted = connection.execute(select(func.count()).select_from(found.subquery()))
        number += int(counted.scalar_one())
        if number >= at_most:
            return at_most
    return number


def return_values(
    connection: Connection, run_ids: Sequence[str], at_most: int
) -> dict[str, str | None]:
    """Give the return values there are; None for one that is longer than ``at_most`` bytes."""
    length = func.length(run_values.c.return_value)
    shown = case((length <= at_most, run_values.c.return_value))
    query = select(run_values.c.run_id, shown).where(
        run_values.c.run_id.in_(run_ids), run_values.c.return_value.is_not(None)
    )
    return {str(row[0]): codec.to_text(row[1]) for row in connection.execute(query).all()}


def _statements(query: RunQuery, rows: int) -> list[Select[Any]]:
    """Give the queries whose merged rows hold the page.

    Statuses are asked for one by one, since an index gives each of them in order but not their
    union. Where a family of runs is asked for, that index is the narrow one, and the planner
    (which has no statistics) must not be tempted by another: hence the wrapped columns.
    """
    base = select(*ROW).order_by(runs.c.created_at_ms.desc(), runs.c.id.desc()).limit(rows)
    base = base.where(*_bounds(query))
    if query.parent_run_id is not None or query.root_run_id is not None:
        return [base.where(*_family(query))]
    if query.task_id is not None:
        base = base.where(runs.c.task_id == query.task_id)
    if query.task_ids is not None:
        base = base.where(runs.c.task_id.in_(query.task_ids))
    if query.statuses is None:
        return [base]
    return [base.where(runs.c.status == status.value) for status in sorted(query.statuses)]


def _bounds(query: RunQuery) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = []
    if query.since_ms is not None:
        bounds.append(runs.c.created_at_ms >= query.since_ms)
    if query.cursor is not None:
        place = codec.read_run_cursor(query.cursor)
        bounds.append(tuple_(runs.c.created_at_ms, runs.c.id) < place)
    return bounds


def _family(query: RunQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.parent_run_id is not None:
        wanted.append(runs.c.parent_run_id == query.parent_run_id)
    if query.root_run_id is not None:
        root: ColumnElement[Any] = runs.c.root_run_id
        if query.parent_run_id is not None:
            root = _unindexed(root)
        wanted.append(root == query.root_run_id)
    if query.task_id is not None:
        wanted.append(_unindexed(runs.c.task_id) == query.task_id)
    if query.statuses is not None:
        wanted.append(_unindexed(runs.c.status).in_(sorted(s.value for s in query.statuses)))
    return wanted


def _unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(column, "")


def newest(connection: Connection, task_ids: Sequence[str]) -> dict[str, Run]:
    """Give the newest run of each task that has one, in its listed form."""
    found: dict[str, Run] = {}
    for task_id in task_ids:
        row = _NEWEST_OF_TASK(connection, {"task": task_id}).fetchone()
        if row is not None:
            found[task_id] = codec.run_of(row)
    return found


def counts(connection: Connection, since_ms: int | None) -> Mapping[RunStatus, int]:
    """Count runs by status; statuses with none are left out."""
    since = -(2**62) if since_ms is None else since_ms
    found: dict[RunStatus, int] = {}
    for status in RunStatus:
        values = {"in_status": status.value, "since": since}
        number = connection.execute(_COUNT, values).scalar_one()
        if number:
            found[status] = int(number)
    return found


def unfinished(connection: Connection) -> list[Run]:
    """Give every run that has not ended, oldest first."""
    return [codec.run_of(row) for row in connection.execute(_UNFINISHED).all()]

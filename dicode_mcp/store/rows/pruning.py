"""Which runs, inputs and keys may go, and letting go of them a few at a time.

Every question walks an index from the oldest run on, and a cursor carries it past what stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)

from dicode_mcp.protocols import Page, PruneQuery, RunsSize
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.store import codec
from dicode_mcp.store.rows.runs import MAY_GO, get, not_found
from dicode_mcp.store.tables import idempotency_keys, log_chunks, run_payloads, run_values, runs

DROPPED = b""
"""The body of a payload that was let go: no JSON is empty."""

_UNFINISHED = sorted(status.value for status in RunStatus if not status.ended)
_PLACE = (runs.c.created_at_ms, runs.c.id)
_NTH_NEWEST = (
    select(*_PLACE)
    .where(runs.c.task_id == bindparam("task"))
    .order_by(runs.c.created_at_ms.desc(), runs.c.id.desc())
    .limit(1)
    .offset(bindparam("keep"))
)
_NEEDED = select(
    runs.c.id, runs.c.root_run_id, runs.c.parent_run_id, runs.c.retry_of, runs.c.replay_of
).where(runs.c.status.in_(_UNFINISHED))
_DROP_KEY = delete(idempotency_keys).where(
    idempotency_keys.c.task_id == bindparam("of_task"),
    idempotency_keys.c.key == bindparam("of_key"),
)


def tasks(connection: Connection, after: str, limit: int) -> list[str]:
    """Give ids of tasks with runs, each by one step into the index."""
    found: list[str] = []
    query = select(func.min(runs.c.task_id)).where(runs.c.task_id > bindparam("after"))
    while len(found) < limit:
        after_that = connection.execute(query, {"after": found[-1] if found else after}).scalar()
        if after_that is None:
            break
        found.append(after_that)
    return found


def prunable(connection: Connection, query: PruneQuery) -> Page[str]:
    """Give ids of runs that may go; see ``Store``."""
    bounds = _bounds(connection, query)
    if not bounds:
        return Page(())
    limit = codec.page_size(query.limit)
    statement = _walk(query.task_id, query.cursor, limit).where(or_(*bounds))
    if query.ended_before_ms is not None and len(bounds) == 1:
        # No run ends before it was made: lets the index stop where nothing can match any more.
        statement = statement.where(runs.c.created_at_ms < query.ended_before_ms)
    rows: Sequence[Any] = connection.execute(statement).all()
    needed = _needed(connection) if rows else frozenset[str]()
    ids = tuple(row[1] for row in rows if row[1] not in needed and row[2] not in needed)
    return Page(ids, _cursor(rows, limit))


def _bounds(connection: Connection, query: PruneQuery) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = []
    if query.keep is not None:
        values = {"task": query.task_id, "keep": query.keep}
        place = connection.execute(_NTH_NEWEST, values).first()
        if place is not None:
            bounds.append(tuple_(*_PLACE) <= (place[0], place[1]))
    if query.ended_before_ms is not None:
        bounds.append(
            and_(
                runs.c.created_at_ms < query.ended_before_ms,
                runs.c.finished_at_ms < query.ended_before_ms,
            )
        )
    return bounds


def _walk(task_id: str, cursor: str | None, limit: int) -> Any:
    """Ask for a task's runs that ended and are not pinned, oldest first, from a cursor on."""
    statement = select(runs.c.created_at_ms, runs.c.id, runs.c.root_run_id).where(
        runs.c.task_id == task_id, *MAY_GO
    )
    if cursor is not None:
        statement = statement.where(tuple_(*_PLACE) > codec.read_run_cursor(cursor))
    return statement.order_by(*_PLACE).limit(limit)


def _cursor(rows: Sequence[Any], limit: int) -> str | None:
    return codec.place_cursor(rows[-1][0], rows[-1][1]) if len(rows) == limit else None


def _needed(connection: Connection) -> frozenset[str]:
    """Give the ids that unfinished runs name: themselves, their roots and whom they follow."""
    rows = connection.execute(_NEEDED).all()
    return frozenset(run_id for row in rows for run_id in row if run_id is not None)


def size(connection: Connection, run_ids: Sequence[str]) -> RunsSize:
    """Measure rows and bodies; logs are measured by ``log_bytes``."""
    number, oldest, newest = connection.execute(
        select(func.count(), func.min(runs.c.created_at_ms), func.max(runs.c.created_at_ms)).where(
            runs.c.id.in_(run_ids)
        )
    ).one()
    payload = func.sum(func.length(run_payloads.c.body))
    value = func.sum(
        func.coalesce(func.length(run_values.c.return_value), 0)
        + func.coalesce(func.length(run_values.c.output), 0)
        + func.coalesce(func.length(run_values.c.error), 0)
    )
    total = 0
    for table, amount in ((run_payloads, payload), (run_values, value)):
        found = connection.execute(select(amount).where(table.c.run_id.in_(run_ids))).scalar()
        total += int(found or 0)
    return RunsSize(int(number), total, oldest, newest)


def log_bytes(connection: Connection, run_ids: Sequence[str]) -> int:
    """Measure the logs of runs, as they lie on disk."""
    amount = func.sum(func.length(log_chunks.c.body))
    found = connection.execute(select(amount).where(log_chunks.c.run_id.in_(run_ids))).scalar()
    return int(found or 0)


def pin(connection: Connection, run_id: str, pinned: bool) -> Run:
    """Set or take away a pin; gives the run as it then is. Raises RUN_NOT_FOUND."""
    connection.execute(update(runs).where(runs.c.id == run_id).values(pinned=pinned))
    run = get(connection, run_id)
    if run is None:
        raise not_found(run_id)
    return run


def with_input(
    connection: Connection, task_id: str, ended_before_ms: int, limit: int, cursor: str | None
) -> Page[str]:
    """Give ids of ended runs that still have their payload; see ``Store``."""
    rows: Sequence[Any] = connection.execute(
        _walk(task_id, cursor, codec.page_size(limit)).where(
            runs.c.created_at_ms < ended_before_ms, runs.c.finished_at_ms < ended_before_ms
        )
    ).all()
    kept = select(run_payloads.c.run_id).where(
        run_payloads.c.run_id.in_([row[1] for row in rows]),
        func.length(run_payloads.c.body) > 0,
    )
    has_one = set(connection.execute(kept).scalars())
    ids = tuple(row[1] for row in rows if row[1] in has_one)
    return Page(ids, _cursor(rows, codec.page_size(limit)))


def drop_inputs(connection: Connection, run_ids: Sequence[str]) -> int:
    """Let go of payloads of ended runs that are not pinned; gives how many there were."""
    may = select(runs.c.id).where(runs.c.id.in_(run_ids), *MAY_GO)
    statement = (
        update(run_payloads)
        .where(run_payloads.c.run_id.in_(may), func.length(run_payloads.c.body) > 0)
        .values(body=DROPPED)
    )
    return connection.execute(statement).rowcount


def drop_keys(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete keys made before a time, at most ``limit``; gives how many."""
    keys = idempotency_keys.c
    old = (
        select(keys.task_id, keys.key)
        .where(keys.created_at_ms <= before_ms)
        .order_by(keys.created_at_ms)
        .limit(limit)
    )
    found = [{"of_task": row[0], "of_key": row[1]} for row in connection.execute(old).all()]
    if found:
        # One by one: SQLite reads the whole table for pairs in a list.
        connection.execute(_DROP_KEY, found)
    return len(found)

"""The audit trail: only ever added to, and the head of the chain that binds its entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    func,
    insert,
    select,
)

from dicode_mcp.protocols import AuditEntry, AuditQuery, Page
from dicode_mcp.store import codec
from dicode_mcp.store.rows import meta
from dicode_mcp.store.tables import audit

_HEAD = "audit_head"
_ADD = insert(audit)


def row_of(entry: AuditEntry) -> dict[str, Any]:
    """Give an entry as a row; its id is given by the database."""
    return {
        "at_ms": entry.at_ms,
        "actor": entry.actor,
        "surface": entry.surface,
        "action": entry.action,
        "target": entry.target,
        "outcome": entry.outcome,
        "detail": codec.to_json(dict(entry.detail)),
        "chain": entry.chain,
    }


def append(connection: Connection, rows: Sequence[Mapping[str, Any]], new_head: str) -> None:
    """Write entries in order, and the head that now stands for all of them."""
    for row in rows:
        connection.execute(_ADD, row)
    meta.put(connection, _HEAD, new_head)


def head(connection: Connection) -> str | None:
    """Read the head of the chain."""
    return meta.get(connection, _HEAD)


def page(
    connection: Connection,
    limit: int,
    before_id: int | None,
    after_id: int | None,
    query: AuditQuery,
) -> Page[AuditEntry]:
    """Give entries, newest first; with ``after_id`` oldest first. The cursor is the last id."""
    size = codec.page_size(limit)
    order = audit.c.id.desc() if after_id is None else audit.c.id
    wanted = _narrowed(select(audit), query).order_by(order).limit(size + 1)
    if before_id is not None:
        wanted = wanted.where(audit.c.id < before_id)
    if after_id is not None:
        wanted = wanted.where(audit.c.id > after_id)
    rows = connection.execute(wanted).mappings().all()
    items = tuple(codec.audit_of({str(k): v for k, v in row.items()}) for row in rows[:size])
    return Page(items, str(items[-1].id) if len(rows) > size else None)


def _narrowed(wanted: Select[Any], query: AuditQuery) -> Select[Any]:
    if query.action is not None:
        wanted = wanted.where(audit.c.action == query.action)
    if query.actor is not None:
        wanted = wanted.where(_is(audit.c.actor, query.actor))
    if query.since_ms is not None:
        wanted = wanted.where(audit.c.at_ms >= query.since_ms)
    if query.target is not None:
        wanted = wanted.where(_is(audit.c.target, query.target))
    return wanted


def _is(column: Column[Any], text: str) -> ColumnElement[bool]:
    if not text.endswith("*"):
        return column == text
    start = text[:-1]
    # Not LIKE: it has wildcards, and ignores case on SQLite.
    return func.substr(column, 1, len(start)) == start

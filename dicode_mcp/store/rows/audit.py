"""The audit trail: only ever added to."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from dicode_mcp.protocols import AuditEntry, Page
from dicode_mcp.store import codec
from dicode_mcp.store.tables import audit

_ADD = insert(audit)


def add(connection: Connection, entry: AuditEntry, detail: bytes) -> None:
    """Write an entry; its id is given by the database. ``detail`` is its JSON."""
    row = {
        "at_ms": entry.at_ms,
        "actor": entry.actor,
        "surface": entry.surface,
        "action": entry.action,
        "target": entry.target,
        "outcome": entry.outcome,
        "detail": detail,
    }
    connection.execute(_ADD, row)


def page(connection: Connection, limit: int, before_id: int | None) -> Page[AuditEntry]:
    """Give entries, newest first; the cursor is the id to pass as ``before_id``."""
    size = codec.page_size(limit)
    query = select(audit).order_by(audit.c.id.desc()).limit(size + 1)
    if before_id is not None:
        query = query.where(audit.c.id < before_id)
    rows = connection.execute(query).mappings().all()
    items = tuple(codec.audit_of({str(k): v for k, v in row.items()}) for row in rows[:size])
    return Page(items, str(items[-1].id) if len(rows) > size else None)

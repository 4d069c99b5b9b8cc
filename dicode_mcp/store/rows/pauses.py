"""Stored pauses of tasks."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, bindparam, delete, select

from dicode_mcp.protocols import Pause
from dicode_mcp.store.rows import upsert
from dicode_mcp.store.tables import pauses

_PUT = upsert.statements(pauses)
_ALL = select(pauses.c.task_id, pauses.c.at_ms, pauses.c.actor, pauses.c.reason)
_DELETE = delete(pauses).where(pauses.c.task_id == bindparam("task"))


def put(connection: Connection, pause: Pause) -> None:
    """Store a pause."""
    upsert.put(connection, _PUT, asdict(pause))


def remove(connection: Connection, task_id: str) -> bool:
    """Delete a pause; tells whether there was one."""
    return connection.execute(_DELETE, {"task": task_id}).rowcount > 0


def every(connection: Connection) -> dict[str, Pause]:
    """Give all pauses by task."""
    return {row[0]: Pause(*row) for row in connection.execute(_ALL).all()}

"""Versions of tasks that a human approved."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, bindparam, delete, select

from dicode_mcp.protocols import Approval
from dicode_mcp.store.rows import upsert
from dicode_mcp.store.tables import approvals

_PUT = upsert.statements(approvals)
_ALL = select(
    approvals.c.task_id,
    approvals.c.digest,
    approvals.c.at_ms,
    approvals.c.actor,
    approvals.c.revision,
).order_by(approvals.c.task_id, approvals.c.at_ms, approvals.c.digest)
_DELETE = delete(approvals).where(approvals.c.task_id == bindparam("task"))


def put(connection: Connection, approval: Approval) -> None:
    """Store an approval."""
    upsert.put(connection, _PUT, asdict(approval))


def remove(connection: Connection, task_id: str) -> int:
    """Delete the approvals of a task; gives how many there were."""
    return connection.execute(_DELETE, {"task": task_id}).rowcount


def every(connection: Connection) -> dict[str, list[Approval]]:
    """Give all approvals by task, oldest first."""
    found: dict[str, list[Approval]] = {}
    for row in connection.execute(_ALL).all():
        found.setdefault(row[0], []).append(Approval(*row))
    return found

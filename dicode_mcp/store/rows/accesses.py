"""What the last runs of tasks used, a text for each task."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, bindparam, delete, select

from dicode_mcp.store.rows import upsert
from dicode_mcp.store.tables import accesses

_PUT = upsert.statements(accesses)
_GET = select(accesses.c.seen).where(accesses.c.task_id == bindparam("task"))
_TASKS = select(accesses.c.task_id)
_FORGET = delete(accesses).where(accesses.c.task_id == bindparam("task"))


def put(connection: Connection, texts: Mapping[str, str]) -> None:
    """Keep texts in place of earlier ones."""
    for task_id, seen in texts.items():
        upsert.put(connection, _PUT, {"task_id": task_id, "seen": seen})


def get(connection: Connection, task_id: str) -> str | None:
    """Give a task's text."""
    return connection.execute(_GET, {"task": task_id}).scalar()


def forget(connection: Connection, keep: Collection[str]) -> int:
    """Delete those of other tasks than ``keep``; gives how many."""
    gone = [task for task in connection.execute(_TASKS).scalars() if task not in keep]
    for task in gone:
        connection.execute(_FORGET, {"task": task})
    return len(gone)

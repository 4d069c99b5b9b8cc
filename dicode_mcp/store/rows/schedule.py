"""The last cron slot of each task that was dealt with."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from dicode_mcp.store.rows import upsert
from dicode_mcp.store.tables import schedule_slots

_PUT = upsert.statements(schedule_slots)
_ALL = select(schedule_slots.c.task_id, schedule_slots.c.slot_ms)
_ONE = select(schedule_slots.c.slot_ms).where(schedule_slots.c.task_id == bindparam("task"))


def slots(connection: Connection) -> dict[str, int]:
    """Give the slot of each task (epoch ms)."""
    return {task_id: slot for task_id, slot in connection.execute(_ALL).all()}


def put(connection: Connection, task_id: str, slot_ms: int) -> None:
    """Note a slot, later or earlier than the one noted."""
    upsert.put(connection, _PUT, {"task_id": task_id, "slot_ms": slot_ms})


def advance(connection: Connection, task_id: str, slot_ms: int) -> None:
    """Note a slot unless a later one is noted: a caught-up slot does not turn time back."""
    noted = connection.execute(_ONE, {"task": task_id}).scalar()
    if noted is None or noted < slot_ms:
        put(connection, task_id, slot_ms)

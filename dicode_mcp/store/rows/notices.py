"""What people were told of each task; no row when there is nothing to remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from dicode_mcp.runs.notices import NoticeChange, NoticeState, Settled
from dicode_mcp.store.prepared import Prepared
from dicode_mcp.store.tables import notices

_FIELDS = tuple(column.name for column in notices.c)
_ONE = Prepared(select(*notices.c).where(notices.c.task_id == bindparam("task")))
_UNDELIVERED = select(*notices.c).where(notices.c.undelivered > 0).order_by(notices.c.task_id)
_DELETE = Prepared(delete(notices).where(notices.c.task_id == bindparam("task")))
_INSERT = Prepared(insert(notices))


def change(connection: Connection, wanted: NoticeChange) -> Settled:
    """Let a run's end move the state of a task, and give what that came to."""
    row = _ONE(connection, {"task": wanted.task_id}).fetchone()
    before = NoticeState(wanted.task_id) if row is None else _state(row)
    settled = wanted.settle(before)
    if settled.state != before:
        _DELETE(connection, {"task": wanted.task_id})
        if settled.state != NoticeState(wanted.task_id):
            _INSERT(connection, _row(settled.state))
    return settled


def undelivered(connection: Connection) -> dict[str, NoticeState]:
    """Give the states of tasks whose last notice did not get through."""
    return {row[0]: _state(row) for row in connection.execute(_UNDELIVERED).all()}


def _state(row: Sequence[Any]) -> NoticeState:
    fields = dict(zip(_FIELDS, row, strict=True))
    error: bytes | None = fields["delivery_error"]
    fields["told"] = tuple(str(fields["told"]).split())
    fields["delivery_error"] = None if error is None else error.decode("utf-8", "replace")
    return NoticeState(**fields)


def _row(state: NoticeState) -> dict[str, Any]:
    fields = {name: getattr(state, name) for name in _FIELDS}
    error = state.delivery_error
    fields["told"] = " ".join(state.told)
    fields["delivery_error"] = None if error is None else error.encode("utf-8", "replace")
    return fields

"""Rows of what joins wait for, and families of runs: attempts of one wish, trees of one root."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, or_, select

from dicode_mcp.runs.joins import Arrival
from dicode_mcp.runs.model import Payload, Run, RunStatus
from dicode_mcp.store import codec
from dicode_mcp.store.prepared import Prepared
from dicode_mcp.store.rows.runs import ROW, add, get
from dicode_mcp.store.tables import join_arrivals, runs

_MOST_ATTEMPTS = 1_000

_PLACE = (
    join_arrivals.c.root_run_id == bindparam("root"),
    join_arrivals.c.task_id == bindparam("task"),
)
_PUT = Prepared(insert(join_arrivals))
_DROP_SOURCE = Prepared(
    delete(join_arrivals).where(*_PLACE, join_arrivals.c.source == bindparam("src"))
)
_DROP = Prepared(delete(join_arrivals).where(*_PLACE))
_ARRIVED = Prepared(
    select(
        join_arrivals.c.task_id,
        join_arrivals.c.source,
        join_arrivals.c.run_id,
        join_arrivals.c.fits,
    )
    .where(join_arrivals.c.root_run_id == bindparam("root"))
    .order_by(join_arrivals.c.task_id, join_arrivals.c.source)
)
_NOT_ENDED = or_(*(runs.c.status == s.value for s in RunStatus if not s.ended))
_ALIVE = tuple(
    Prepared(select(runs.c.id).where(column == bindparam("root"), _NOT_ENDED).limit(1))
    for column in (runs.c.id, runs.c.root_run_id)
)
"""The root first: while it is on, nothing needs to be looked through."""
_ROW = Prepared(select(*ROW).where(runs.c.id == bindparam("run_id")))
_NEXT = Prepared(select(*ROW).where(runs.c.retry_of == bindparam("run_id")).limit(1))
_TREE = Prepared(
    select(*ROW)
    .where(runs.c.root_run_id == bindparam("root"))
    .order_by(runs.c.created_at_ms, runs.c.id)
    .limit(bindparam("most"))
)


class RowShelf:
    """``Shelf`` over a connection in a transaction; ``written`` gives a payload's bytes."""

    def __init__(self, connection: Connection, written: Callable[[Payload], bytes | None]) -> None:
        self._connection = connection
        self._written = written

    def put(self, root: str, task_id: str, arrival: Arrival) -> None:
        """Keep an arrival in the place of an earlier one."""
        place = {"root": root, "task": task_id, "src": arrival.source}
        _DROP_SOURCE(self._connection, place)
        values = {
            "root_run_id": root,
            "task_id": task_id,
            "source": arrival.source,
            "run_id": arrival.run_id,
            "fits": arrival.fits,
        }
        _PUT(self._connection, values)

    def arrivals(self, root: str) -> Mapping[str, Sequence[Arrival]]:
        """Give what has arrived, by the waiting task."""
        found: dict[str, list[Arrival]] = {}
        for task_id, source, run_id, fits in _ARRIVED(self._connection, {"root": root}).fetchall():
            found.setdefault(task_id, []).append(Arrival(source, run_id, bool(fits)))
        return found

    def clear(self, root: str, task_id: str) -> None:
        """Forget what has arrived for a task."""
        _DROP(self._connection, {"root": root, "task": task_id})

    def run(self, run_id: str) -> Run | None:
        """Read a run with its values."""
        return get(self._connection, run_id)

    def alive(self, root: str) -> bool:
        """Tell whether any run under the root has not ended."""
        return any(find(self._connection, {"root": root}).fetchone() for find in _ALIVE)

    def add(self, run: Run, payload: Payload) -> None:
        """Add a run."""
        add(self._connection, run, self._written(payload))


def attempts(connection: Connection, run_id: str) -> list[Run]:
    """Give every attempt of the wish a run belongs to, in order; empty for an unknown run."""
    row = _ROW(connection, {"run_id": run_id}).fetchone()
    if row is None:
        return []
    found = [codec.run_of(row)]
    while found[0].retry_of is not None and len(found) < _MOST_ATTEMPTS:
        row = _ROW(connection, {"run_id": found[0].retry_of}).fetchone()
        if row is None:
            break
        found.insert(0, codec.run_of(row))
    while len(found) < _MOST_ATTEMPTS:
        row = _NEXT(connection, {"run_id": found[-1].id}).fetchone()
        if row is None:
            break
        found.append(codec.run_of(row))
    return found


def tree(connection: Connection, root: str, most: int) -> list[Run]:
    """Give the first runs under a root, itself included, oldest first."""
    rows = _TREE(connection, {"root": root, "most": most}).fetchall()
    found = [codec.run_of(row) for row in rows]
    if all(run.id != root for run in found):
        row = _ROW(connection, {"run_id": root}).fetchone()
        found[:0] = [codec.run_of(row)] if row else []
    return found[:most]

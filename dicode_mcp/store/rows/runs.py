"""Rows of runs: adding, claiming, ending, reading one, deleting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    String,
    Table,
    bindparam,
    case,
    delete,
    false,
    func,
    insert,
    null,
    or_,
    select,
    update,
)

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, finished, move, sources_of
from dicode_mcp.runs.notices import NoticeChange
from dicode_mcp.store import codec
from dicode_mcp.store.bodies import Bodies
from dicode_mcp.store.prepared import Prepared
from dicode_mcp.store.rows import days, notices, schedule
from dicode_mcp.store.tables import (
    idempotency_keys,
    join_arrivals,
    once_values,
    questions,
    run_payloads,
    run_values,
    runs,
)

ROW = tuple(runs.c[name] for name in codec.ROW_FIELDS)

MAY_GO = (
    # Not by the index on statuses, which the planner would take for a long list of ids: it has
    # no statistics, and nearly every run has ended.
    func.coalesce(runs.c.status, "").in_(sorted(s.value for s in RunStatus if s.ended)),
    runs.c.pinned == false(),
)
"""What is true of runs that may be deleted."""

_INSERT = Prepared(insert(runs))
_INSERT_PAYLOAD = Prepared(insert(run_payloads))
_INSERT_VALUES = Prepared(insert(run_values))
_INSERT_KEY = Prepared(insert(idempotency_keys))
_ONE = Prepared(
    select(*ROW, run_values.c.return_value, run_values.c.output, run_values.c.error)
    .outerjoin_from(runs, run_values, run_values.c.run_id == runs.c.id)
    .where(runs.c.id == bindparam("run_id"))
)
_ROW = Prepared(select(*ROW).where(runs.c.id == bindparam("run_id")))
_STATUS = Prepared(select(runs.c.status).where(runs.c.id == bindparam("run_id")))
_PAYLOAD = Prepared(
    select(runs.c.id, run_payloads.c.body)
    .outerjoin_from(runs, run_payloads, run_payloads.c.run_id == runs.c.id)
    .where(runs.c.id == bindparam("run_id"))
)
_COPY_PAYLOAD = Prepared(
    insert(run_payloads).from_select(
        ["run_id", "body"],
        select(bindparam("new_id", type_=String), run_payloads.c.body).where(
            run_payloads.c.run_id == bindparam("run_id")
        ),
    )
)
_BY_SLOT = Prepared(
    select(runs.c.id).where(
        runs.c.task_id == bindparam("task"), runs.c.slot_ms == bindparam("slot")
    )
)
_KEY_IS = (
    idempotency_keys.c.task_id == bindparam("task"),
    idempotency_keys.c.key == bindparam("k"),
)
_BY_KEY = Prepared(
    select(idempotency_keys.c.run_id, idempotency_keys.c.created_at_ms).where(*_KEY_IS)
)
_DROP_KEY = Prepared(delete(idempotency_keys).where(*_KEY_IS))
_AT: BindParameter[int] = bindparam("at", type_=BigInteger)
_CLAIM = Prepared(
    update(runs)
    .where(
        runs.c.id == bindparam("run_id"),
        or_(*(runs.c.status == s.value for s in sorted(sources_of(RunStatus.RUNNING)))),
    )
    .values(
        status=RunStatus.RUNNING.value,
        fence=runs.c.fence + 1,
        started_at_ms=func.coalesce(runs.c.started_at_ms, bindparam("at")),
        task_hash=bindparam("hash"),
        revision=bindparam("rev"),
        waited_ms=runs.c.waited_ms
        + case((runs.c.paused_at_ms < _AT, _AT - runs.c.paused_at_ms), else_=0),
        paused_at_ms=null(),
    )
)
_FINISHED_FIELDS = (
    "status",
    "finished_at_ms",
    "reason",
    "error",
    "exit_code",
    "signal",
    "cpu_ms",
    "tokens",
    "waited_ms",
    "paused_at_ms",
    "unenforced",
)
_FINISH = Prepared(
    update(runs)
    .where(
        runs.c.id == bindparam("run_id"),
        runs.c.status == bindparam("from_status"),
        runs.c.fence == bindparam("from_fence"),
    )
    .values({name: bindparam(f"to_{name}") for name in _FINISHED_FIELDS})
)


def add(connection: Connection, run: Run, payload: bytes | None) -> Run:
    """Insert a run unless its key or slot has one; gives the run that stands.

    ``payload`` is the bytes that are kept of it. Raises CONFLICT when the id is taken.
    """
    earlier = _earlier(connection, run)
    if earlier is not None:
        return earlier
    _INSERT(connection, codec.row_of(run))
    if payload is not None:
        _INSERT_PAYLOAD(connection, {"run_id": run.id, "body": payload})
    _add_values(connection, run)
    if run.idempotency_key is not None:
        _keep_key(connection, run, run.idempotency_key)
    if run.slot_ms is not None:
        schedule.advance(connection, run.task_id, run.slot_ms)
    if run.status.ended:
        days.add(connection, run)
    return run


def _earlier(connection: Connection, run: Run) -> Run | None:
    """Find the run that already answers this request, if there is one."""
    if run.idempotency_key is not None:
        known = _BY_KEY(connection, {"task": run.task_id, "k": run.idempotency_key}).fetchone()
        if known is not None and run.created_at_ms - known[1] < codec.IDEMPOTENCY_MS:
            return get(connection, known[0])
    if run.slot_ms is not None:
        taken = _BY_SLOT(connection, {"task": run.task_id, "slot": run.slot_ms}).fetchone()
        if taken is not None:
            return get(connection, taken[0])
    return None


def _keep_key(connection: Connection, run: Run, key: str) -> None:
    _DROP_KEY(connection, {"task": run.task_id, "k": key})
    values = {
        "task_id": run.task_id,
        "key": key,
        "run_id": run.id,
        "created_at_ms": run.created_at_ms,
    }
    _INSERT_KEY(connection, values)


def _add_values(connection: Connection, run: Run) -> None:
    bodies = codec.bodies_of(run.return_value, run.output, run.error)
    if bodies is not None:
        _INSERT_VALUES(connection, {"run_id": run.id, **bodies})


def start(
    connection: Connection, run_id: str, now_ms: int, task_hash: str, revision: str | None
) -> Run:
    """Claim a queued run; raises CONFLICT or RUN_NOT_FOUND."""
    changed = _CLAIM(
        connection, {"run_id": run_id, "at": now_ms, "hash": task_hash, "rev": revision}
    ).rowcount
    row = _ROW(connection, {"run_id": run_id}).fetchone()
    if row is None:
        raise not_found(run_id)
    run = codec.run_of(row)
    if changed != 1:
        # The transition table words the refusal; a queued run that was not claimed is a lost race.
        move(run, RunStatus.RUNNING)
        raise stale(run_id, run.status)
    return run


def finish(
    connection: Connection,
    run: Run,
    outcome: Outcome,
    follow_ups: Sequence[tuple[Run, bytes | None]],
    notice: NoticeChange | None,
    written: Callable[[Payload], bytes | None],
) -> Run:
    """End a run and insert its follow-ups; raises CONFLICT or RUN_NOT_FOUND.

    ``written`` gives the bytes that are kept of a payload.
    """
    ended = finished(run, outcome)
    row = codec.row_of(ended)
    place = {"run_id": run.id, "from_status": run.status.value, "from_fence": run.fence}
    fresh = {f"to_{name}": row[name] for name in _FINISHED_FIELDS}
    if _FINISH(connection, {**place, **fresh}).rowcount != 1:
        stored = _STATUS(connection, {"run_id": run.id}).fetchone()
        raise not_found(run.id) if stored is None else stale(run.id, RunStatus(stored[0]))
    _add_values(connection, ended)
    days.add(connection, ended)
    for follow_up, payload in follow_ups:
        add(connection, follow_up, payload)
    told = notices.change(connection, notice).follow_up if notice else None
    if told is not None:
        add(connection, told[0], written(told[1]))
    return ended


def add_like(connection: Connection, run: Run, model_id: str) -> None:
    """Insert a run, as ``add`` does, that is started with what another one was started with."""
    if add(connection, run, None) is run:
        _COPY_PAYLOAD(connection, {"new_id": run.id, "run_id": model_id})


def get(connection: Connection, run_id: str) -> Run | None:
    """Read a run with its bodies."""
    row = _ONE(connection, {"run_id": run_id}).fetchone()
    if row is None:
        return None
    width = len(codec.ROW_FIELDS)
    return codec.with_bodies(codec.run_of(row[:width]), *row[width:])


def payload(connection: Connection, run_id: str, bodies: Bodies) -> Payload | None:
    """Read what a run was started with."""
    row = _PAYLOAD(connection, {"run_id": run_id}).fetchone()
    if row is None:
        return None
    return codec.payload_of(bodies.open("payload", row[1]) if row[1] else row[1])


def ended_of(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """Give those of ``run_ids`` that are runs which have ended and are not pinned."""
    query = select(runs.c.id).where(runs.c.id.in_(run_ids), *MAY_GO)
    return [str(run_id) for run_id in connection.execute(query).scalars()]


def remove(connection: Connection, run_ids: Sequence[str]) -> int:
    """Delete runs that have ended and are not pinned, with all they own; gives how many."""
    ids = ended_of(connection, run_ids)
    owned: Iterable[Table] = (
        run_payloads,
        run_values,
        idempotency_keys,
        questions,
        once_values,
        join_arrivals,
    )
    for table in owned:
        connection.execute(delete(table).where(table.c.run_id.in_(ids)))
    return connection.execute(delete(runs).where(runs.c.id.in_(ids))).rowcount


def not_found(run_id: str) -> DicodeError:
    """Say that there is no such run."""
    return DicodeError(
        Code.RUN_NOT_FOUND,
        f"there is no run {run_id}",
        hint="get_runs lists the runs that are kept",
        data={"run_id": run_id},
    )


def stale(run_id: str, status: RunStatus) -> DicodeError:
    """Say that a run has moved on since it was read."""
    return DicodeError(
        Code.CONFLICT,
        f"run {run_id} has changed since it was read; it is {status.value} now",
        hint="read the run again",
        data={"run_id": run_id, "status": status.value},
    )

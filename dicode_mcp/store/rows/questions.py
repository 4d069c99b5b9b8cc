"""Rows of questions: a run that begins to wait, an answer, and what a run does only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import Run, RunStatus, move, suspended
from dicode_mcp.runs.questions import Answered, Question, already
from dicode_mcp.store import codec
from dicode_mcp.store.bodies import Bodies
from dicode_mcp.store.rows import upsert
from dicode_mcp.store.rows.runs import get, not_found, stale
from dicode_mcp.store.tables import once_values, questions, runs

MAX_ONCE = 1_000
"""How many values one run may keep with ``once_put``."""
HIDDEN = ""
"""The key of what a run must not show, among the values it keeps: one that no task can name."""
_PUT = upsert.statements(once_values)


def suspend(
    connection: Connection,
    run: Run,
    question: Question,
    cpu_ms: int | None,
    tokens: int | None,
) -> Run:
    """Move a running run to waiting with its question; raises CONFLICT or RUN_NOT_FOUND."""
    after = suspended(run, question.asked_at_ms, cpu_ms=cpu_ms, tokens=tokens)
    changed = connection.execute(
        update(runs)
        .where(runs.c.id == run.id, runs.c.status == run.status.value, runs.c.fence == run.fence)
        .values(
            status=after.status.value,
            paused_at_ms=after.paused_at_ms,
            cpu_ms=after.cpu_ms,
            tokens=after.tokens,
        )
    )
    if changed.rowcount != 1:
        stored = get(connection, run.id)
        raise not_found(run.id) if stored is None else stale(run.id, stored.status)
    connection.execute(insert(questions).values(_row_of(question)))
    return after


def answer(connection: Connection, run_id: str, n: int, answered: Answered, bodies: Bodies) -> Run:
    """Keep an answer and queue its run; raises CONFLICT or RUN_NOT_FOUND."""
    run = get(connection, run_id)
    if run is None:
        raise not_found(run_id)
    question = _one(connection, run_id, n, bodies)
    require_open(run, n, question)
    value = None
    if answered.value is not None:
        value = bodies.seal("answer", codec.to_json(dict(answered.value)))
    connection.execute(
        update(questions)
        .where(questions.c.run_id == run_id, questions.c.n == n)
        .values(
            answered_at_ms=answered.at_ms,
            answer=value,
            actor=answered.actor,
            channel=answered.channel,
        )
    )
    queued = move(run, RunStatus.QUEUED)
    connection.execute(update(runs).where(runs.c.id == run_id).values(status=queued.status.value))
    return queued


def require_open(run: Run, n: int, question: Question | None) -> None:
    """Raise CONFLICT unless ``run`` waits for an answer to its question ``n``."""
    if question is not None and question.answered is not None:
        raise already(question)
    if question is None or run.status is not RunStatus.WAITING:
        raise DicodeError(
            Code.CONFLICT,
            f"run {run.id} does not wait for an answer to question {n}; it is {run.status.value}",
            hint=f'get_run with run_id "{run.id}" shows what it asks, if it does',
            data={"run_id": run.id, "status": run.status.value},
        )


def of_run(connection: Connection, run_id: str, bodies: Bodies) -> list[Question]:
    """Give all questions of a run."""
    rows = connection.execute(
        select(questions).where(questions.c.run_id == run_id).order_by(questions.c.n)
    )
    return [_question(row._mapping, bodies) for row in rows]  # pyright: ignore[reportPrivateUsage]


def open_ones(
    connection: Connection, run_ids: Sequence[str] | None, bodies: Bodies
) -> list[Question]:
    """Give the questions that runs wait for, by deadline."""
    query: Select[Any] = (
        select(questions)
        .join_from(runs, questions, questions.c.run_id == runs.c.id)
        .where(runs.c.status == RunStatus.WAITING.value, questions.c.answered_at_ms.is_(None))
        .order_by(questions.c.deadline_ms, questions.c.run_id)
    )
    if run_ids is not None:
        query = query.where(runs.c.id.in_(run_ids))
    rows = connection.execute(query)
    return [_question(row._mapping, bodies) for row in rows]  # pyright: ignore[reportPrivateUsage]


def once_get(connection: Connection, run_id: str, key: str, bodies: Bodies) -> str | None:
    """Read a value a run keeps."""
    query = select(once_values.c.value).where(
        once_values.c.run_id == run_id, once_values.c.key == key
    )
    kept = connection.execute(query).scalar()
    return codec.to_text(bodies.open("once", kept) if kept else kept)


def once_put(connection: Connection, run_id: str, key: str, value: str, bodies: Bodies) -> str:
    """Keep a value unless there is one; gives the one that is kept."""
    known = once_get(connection, run_id, key, bodies)
    if known is not None:
        return known
    if connection.execute(select(runs.c.id).where(runs.c.id == run_id)).scalar() is None:
        raise not_found(run_id)
    count = select(func.count()).where(once_values.c.run_id == run_id, once_values.c.key != HIDDEN)
    require_room(run_id, int(connection.execute(count).scalar() or 0))
    kept = bodies.seal("once", value.encode("utf-8", "surrogatepass"))
    row = {"run_id": run_id, "key": key, "value": kept}
    connection.execute(insert(once_values).values(row))
    return value


def put_hidden(connection: Connection, run_id: str, values: str, bodies: Bodies) -> None:
    """Keep which values a run must not show, in place of those kept before."""
    if connection.execute(select(runs.c.id).where(runs.c.id == run_id)).scalar() is None:
        raise not_found(run_id)
    kept = bodies.seal("once", values.encode("utf-8", "surrogatepass"))
    upsert.put(connection, _PUT, {"run_id": run_id, "key": HIDDEN, "value": kept})


def require_room(run_id: str, kept: int) -> None:
    """Raise TOO_LARGE when a run keeps as many values as it may."""
    if kept >= MAX_ONCE:
        raise DicodeError(
            Code.TOO_LARGE,
            f"run {run_id} keeps {MAX_ONCE:,} values with once, and may keep no more",
            hint="keep one value for many steps, or use kv",
        )


def _one(connection: Connection, run_id: str, n: int, bodies: Bodies) -> Question | None:
    return next((q for q in of_run(connection, run_id, bodies) if q.n == n), None)


def _row_of(question: Question) -> dict[str, Any]:
    return {
        "run_id": question.run_id,
        "n": question.n,
        "key": question.key,
        "message": codec.to_bytes(question.message),
        "schema": codec.to_json(dict(question.schema)),
        "asked_at_ms": question.asked_at_ms,
        "deadline_ms": question.deadline_ms,
    }


def _question(row: Any, bodies: Bodies) -> Question:
    answered = None
    if row["answered_at_ms"] is not None:
        kept = row["answer"]
        value = codec.from_json(bodies.open("answer", kept) if kept else kept)
        answered = Answered(value, row["answered_at_ms"], row["actor"], row["channel"])
    return Question(
        run_id=row["run_id"],
        n=row["n"],
        message=codec.to_text(row["message"]) or "",
        schema=codec.from_json(row["schema"]),
        asked_at_ms=row["asked_at_ms"],
        deadline_ms=row["deadline_ms"],
        key=row["key"],
        answered=answered,
    )

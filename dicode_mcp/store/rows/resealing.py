"""Writing sealed bodies anew with the key in force, a few at a time, in the order of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    and_,
    false,
    func,
    literal,
    or_,
    select,
    update,
)

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.store.bodies import Bodies, Kind
from dicode_mcp.store.tables import kv, once_values, questions, run_payloads

MOST_ROWS = 100
MOST_BYTES = 4 * 1024 * 1024
"""Of one step, after the first body: other writers wait for it."""


class NamedBodies(Bodies, Protocol):
    """Bodies that show which key sealed them."""

    @property
    def prefix(self) -> bytes:
        """What every body begins with that is sealed with the key in force."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. ``place`` is where the next one begins; None: there is no further row."""

    place: tuple[Any, ...] | None
    resealed: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class _Kept:
    kind: Kind
    key: tuple[Column[Any], ...]
    body: Column[Any]


_KEPT: Sequence[_Kept] = (
    _Kept("payload", (run_payloads.c.run_id,), run_payloads.c.body),
    _Kept("answer", (questions.c.run_id, questions.c.n), questions.c.answer),
    _Kept("once", (once_values.c.run_id, once_values.c.key), once_values.c.value),
    _Kept("kv", (kv.c.task_id, kv.c.key), kv.c.value),
)


def step(connection: Connection, bodies: NamedBodies, place: tuple[Any, ...] | None) -> Step:
    """Seal the next bodies that another key sealed, or none; begin at the beginning with None.

    One that no key opens is left as it is.
    """
    index, after = (int(place[0]), place[1:]) if place else (0, ())
    kept = _KEPT[index]
    prefix = bodies.prefix
    rows = _next(connection, kept, prefix, after)
    resealed = unreadable = 0
    for row in rows:
        *key, body = row
        try:
            fresh = bodies.seal(kept.kind, bodies.open(kept.kind, body))
        except DicodeError as error:
            if error.code is not Code.SECRETS_LOCKED:
                raise
            unreadable += 1
            continue
        here = [column == value for column, value in zip(kept.key, key, strict=True)]
        table = kept.body.table
        connection.execute(update(table).where(*here).values({kept.body.name: fresh}))
        resealed += 1
    if rows:
        return Step((index, *rows[-1][:-1]), resealed, unreadable)
    return Step((index + 1,) if index + 1 < len(_KEPT) else None, 0, 0)


def _next(
    connection: Connection, kept: _Kept, prefix: bytes, after: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    size = 0
    query = (
        select(*kept.key, kept.body)
        .where(
            func.length(kept.body) > 0,
            func.substr(kept.body, 1, len(prefix), type_=LargeBinary) != literal(prefix),
            *([_beyond(kept.key, after)] if after else []),
        )
        .order_by(*kept.key)
        .limit(MOST_ROWS)
    )
    with connection.execute(query) as rows:
        for row in rows:
            size += len(row[-1])
            if found and size > MOST_BYTES:
                break
            found.append(tuple(row))
    return found


def _beyond(columns: Sequence[Column[Any]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Say that a key of several columns comes after another."""
    found: ColumnElement[bool] = false()
    for at, (column, value) in enumerate(zip(columns, values, strict=True)):
        same = [c == v for c, v in zip(columns[:at], values[:at], strict=True)]
        found = or_(found, and_(*same, column > value))
    return found

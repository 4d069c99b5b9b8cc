"""Writing a row whether or not it is there, in terms every database shares.

Right only inside a transaction that keeps other writers out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Insert, Table, Update, and_, bindparam, insert, update


def statements(table: Table) -> tuple[Update, Insert]:
    """Give the two statements that ``put`` needs for a table."""
    keys = [c for c in table.c if c.primary_key]
    change = update(table).where(and_(*(c == bindparam(f"{c.name}_") for c in keys)))
    change = change.values({c.name: bindparam(c.name) for c in table.c if not c.primary_key})
    return change, insert(table)


def put(connection: Connection, pair: tuple[Update, Insert], row: Mapping[str, Any]) -> None:
    """Make ``row`` (all columns of the table) the one with its key."""
    change, add = pair
    keys = {f"{c.name}_": row[c.name] for c in add.table.c if c.primary_key}
    rest = {c.name: row[c.name] for c in add.table.c if not c.primary_key}
    if connection.execute(change, {**keys, **rest}).rowcount == 0:
        connection.execute(add, dict(row))

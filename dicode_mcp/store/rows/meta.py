"""Facts about the data dir itself."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from dicode_mcp.store.tables import meta

_INSTANCE = "instance_id"


def instance_id(connection: Connection) -> str | None:
    """Read the id of this data dir."""
    value = connection.execute(select(meta.c.value).where(meta.c.key == _INSTANCE)).scalar()
    return None if value is None else str(value)


def make_instance_id(connection: Connection, new_id: str) -> str:
    """Give the id of this data dir: the stored one, else ``new_id``, which is stored then."""
    known = instance_id(connection)
    if known is not None:
        return known
    connection.execute(insert(meta), {"key": _INSTANCE, "value": new_id})
    return new_id


def get(connection: Connection, key: str) -> str | None:
    """Read a fact; None when it was never written."""
    value = connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar()
    return None if value is None else str(value)


def put(connection: Connection, key: str, value: str) -> None:
    """Write a fact, in place of what it said before."""
    changed = connection.execute(update(meta).where(meta.c.key == key).values(value=value))
    if not changed.rowcount:
        connection.execute(insert(meta), {"key": key, "value": value})

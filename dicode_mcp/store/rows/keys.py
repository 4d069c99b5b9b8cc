"""Bearer keys: digests, scopes, and when they were used."""

from __future__ import annotations

from dataclasses import asdict, fields

from sqlalchemy import Connection, select

from dicode_mcp.protocols import BearerKey
from dicode_mcp.store.rows import upsert
from dicode_mcp.store.tables import bearer_keys

_FIELDS = tuple(field.name for field in fields(BearerKey))
_PUT = upsert.statements(bearer_keys)
_ALL = select(*(bearer_keys.c[name] for name in _FIELDS)).order_by(
    bearer_keys.c.created_at_ms, bearer_keys.c.id
)


def put(connection: Connection, key: BearerKey) -> None:
    """Store a key."""
    upsert.put(connection, _PUT, {**asdict(key), "scopes": " ".join(key.scopes)})


def every(connection: Connection) -> list[BearerKey]:
    """Give all keys, oldest first."""
    found: list[BearerKey] = []
    for row in connection.execute(_ALL).all():
        values = dict(zip(_FIELDS, row, strict=True))
        values["scopes"] = tuple(values["scopes"].split())
        found.append(BearerKey(**values))
    return found

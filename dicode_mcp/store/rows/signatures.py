"""Signatures of webhooks that were used: each is taken once."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select

from dicode_mcp.store.tables import hook_signatures as table

_PRUNE = delete(table).where(table.c.expires_ms < bindparam("now"))
_KNOWN = select(table.c.key).where(table.c.key == bindparam("wanted"))
_ADD = insert(table)
_DELETE = delete(table).where(table.c.key == bindparam("gone"))


def claim(connection: Connection, keys: Sequence[str], now_ms: int, expires_ms: int) -> bool:
    """Note keys as used until a time, unless one of them is; forget what is past its time."""
    connection.execute(_PRUNE, {"now": now_ms})
    if any(connection.execute(_KNOWN, {"wanted": key}).first() for key in keys):
        return False
    for key in dict.fromkeys(keys):
        connection.execute(_ADD, {"key": key, "expires_ms": expires_ms})
    return True


def release(connection: Connection, keys: Sequence[str]) -> None:
    """Forget keys."""
    for key in keys:
        connection.execute(_DELETE, {"gone": key})

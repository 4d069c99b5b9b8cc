"""Keys and values that tasks keep between runs."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, func, select

from dicode_mcp.store import codec
from dicode_mcp.store.bodies import Bodies
from dicode_mcp.store.rows import upsert
from dicode_mcp.store.tables import kv

_HERE = (kv.c.task_id == bindparam("task"), kv.c.key == bindparam("k"))
_GET = select(kv.c.value).where(*_HERE)
_DELETE = delete(kv).where(*_HERE)
_PUT = upsert.statements(kv)
# Not LIKE: it has wildcards, and ignores case on SQLite.
_KEYS = select(kv.c.key).where(
    kv.c.task_id == bindparam("task"),
    func.substr(kv.c.key, 1, bindparam("length")) == bindparam("prefix"),
)


def get(connection: Connection, task_id: str, key: str, bodies: Bodies) -> str | None:
    """Read a value."""
    body = connection.execute(_GET, {"task": task_id, "k": key}).scalar()
    return codec.to_text(bodies.open("kv", body) if body else body)


def put(
    connection: Connection, task_id: str, key: str, value: str, now_ms: int, bodies: Bodies
) -> None:
    """Write a value."""
    row = {
        "task_id": task_id,
        "key": key,
        "value": bodies.seal("kv", value.encode("utf-8", "surrogatepass")),
        "updated_at_ms": now_ms,
    }
    upsert.put(connection, _PUT, row)


def remove(connection: Connection, task_id: str, key: str) -> bool:
    """Delete a value; tells whether there was one."""
    return connection.execute(_DELETE, {"task": task_id, "k": key}).rowcount > 0


def keys(connection: Connection, task_id: str, prefix: str) -> list[str]:
    """List keys with a prefix, in the order of their code points."""
    values = {"task": task_id, "prefix": prefix, "length": len(prefix)}
    return sorted(str(key) for key in connection.execute(_KEYS, values).scalars())

"""What was decided for sources: dev mode and pins."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, select

from dicode_mcp.protocols import DevMode, SourceOverrides
from dicode_mcp.store.rows import upsert
from dicode_mcp.store.tables import source_states

_PUT = upsert.statements(source_states)
_ALL = select(
    source_states.c.source,
    source_states.c.dev_mode,
    source_states.c.local_path,
    source_states.c.branch,
    source_states.c.pin,
)
_DELETE = delete(source_states).where(source_states.c.source == bindparam("name"))


def put(connection: Connection, source: str, overrides: SourceOverrides) -> None:
    """Store what was decided; nothing decided is no row."""
    if not overrides:
        connection.execute(_DELETE, {"name": source})
        return
    dev = overrides.dev
    row = {
        "source": source,
        "dev_mode": dev is not None,
        "local_path": dev.local_path if dev else None,
        "branch": dev.branch if dev else None,
        "pin": overrides.pin,
    }
    upsert.put(connection, _PUT, row)


def every(connection: Connection) -> dict[str, SourceOverrides]:
    """Give what was decided, by source."""
    found: dict[str, SourceOverrides] = {}
    for source, on, local_path, branch, pin in connection.execute(_ALL).all():
        dev = DevMode(local_path, branch) if on else None
        found[source] = SourceOverrides(dev, pin)
    return found

"""Secrets as they are kept: sealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, bindparam, delete, select

from dicode_mcp.protocols import SealedSecret
from dicode_mcp.store.rows import upsert
from dicode_mcp.store.tables import secrets

_PUT = upsert.statements(secrets)
_ALL = select(secrets.c.name, secrets.c.sealed, secrets.c.updated_at_ms, secrets.c.actor).order_by(
    secrets.c.name
)
_DELETE = delete(secrets).where(secrets.c.name == bindparam("of"))


def put(connection: Connection, sealed: Sequence[SealedSecret]) -> None:
    """Store sealed secrets."""
    for secret in sealed:
        upsert.put(connection, _PUT, asdict(secret))


def remove(connection: Connection, name: str) -> bool:
    """Delete a secret; tells whether it was there."""
    return connection.execute(_DELETE, {"of": name}).rowcount > 0


def every(connection: Connection) -> dict[str, SealedSecret]:
    """Give all of them by name."""
    return {row[0]: SealedSecret(*row) for row in connection.execute(_ALL).all()}

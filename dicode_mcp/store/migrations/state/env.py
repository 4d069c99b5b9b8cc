"""Run by Alembic: the connection and its transaction are the caller's."""

from __future__ import annotations

from alembic import context

from dicode_mcp.store.tables import STATE

context.configure(connection=context.config.attributes["connection"], target_metadata=STATE)
with context.begin_transaction():
    context.run_migrations()

"""Run by Alembic: the connection and its transaction are the caller's."""

from __future__ import annotations

from alembic import context

from dicode_mcp.store.tables import LOGS

context.configure(connection=context.config.attributes["connection"], target_metadata=LOGS)
with context.begin_transaction():
    context.run_migrations()

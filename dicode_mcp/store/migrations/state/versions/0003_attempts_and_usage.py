"""Attempts of a run, what it used, and whether it is to be kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("runs", sa.Column("retry_of", sa.String()))
    op.add_column("runs", sa.Column("retry_until_ms", sa.BigInteger()))
    op.add_column(
        "runs", sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("runs", sa.Column("cpu_ms", sa.BigInteger()))
    op.add_column("runs", sa.Column("tokens", sa.BigInteger()))
    rare = sa.text("retry_of IS NOT NULL")
    op.create_index("runs_retry", "runs", ["retry_of"], sqlite_where=rare, postgresql_where=rare)

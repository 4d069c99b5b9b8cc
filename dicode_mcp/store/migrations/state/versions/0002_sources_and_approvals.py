"""What was decided for sources, and what was approved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "source_states",
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("dev_mode", sa.Boolean(), nullable=False),
        sa.Column("local_path", sa.String()),
        sa.Column("branch", sa.String()),
        sa.Column("pin", sa.String()),
        sa.PrimaryKeyConstraint("source"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "approvals",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("revision", sa.String()),
        sa.PrimaryKeyConstraint("task_id", "digest"),
        sqlite_with_rowid=False,
    )

"""Questions that runs wait for, what a run did once, and how long it waited."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables and columns."""
    op.add_column(
        "runs",
        sa.Column("waited_ms", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    op.add_column("runs", sa.Column("paused_at_ms", sa.BigInteger()))
    op.create_table(
        "questions",
        sa.Column("run_id", sa.String(), primary_key=True),
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("key", sa.String()),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("schema", sa.LargeBinary(), nullable=False),
        sa.Column("asked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("answered_at_ms", sa.BigInteger()),
        sa.Column("answer", sa.LargeBinary()),
        sa.Column("actor", sa.String()),
        sa.Column("channel", sa.String()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "once_values",
        sa.Column("run_id", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )

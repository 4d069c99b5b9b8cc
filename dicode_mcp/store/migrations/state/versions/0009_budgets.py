"""What a day has cost, and the group a run is counted in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table and add the column."""
    op.add_column("runs", sa.Column("limit_key", sa.String()))
    op.create_table(
        "budget_days",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("cpu_ms", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "day"),
        sqlite_with_rowid=False,
    )

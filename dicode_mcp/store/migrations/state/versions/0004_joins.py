"""Which parts of a fan-in have ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "join_arrivals",
        sa.Column("root_run_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("fits", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("root_run_id", "task_id", "source"),
        sqlite_with_rowid=False,
    )
    op.create_index("join_arrivals_run", "join_arrivals", ["run_id"])

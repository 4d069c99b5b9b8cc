"""What has been notified."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "notices",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("since_ms", sa.BigInteger()),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("told_ms", sa.BigInteger()),
        sa.Column("told", sa.String(), nullable=False),
        sa.Column("undelivered", sa.BigInteger(), nullable=False),
        sa.Column("delivery_ms", sa.BigInteger()),
        sa.Column("delivery_run_id", sa.String()),
        sa.Column("delivery_error", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("task_id"),
        sqlite_with_rowid=False,
    )

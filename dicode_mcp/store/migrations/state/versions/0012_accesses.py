"""What the last runs of each task used, and what a run was not held to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the table and add the column."""
    op.add_column("runs", sa.Column("unenforced", sa.String()))
    op.create_table(
        "accesses",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("seen", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
    )

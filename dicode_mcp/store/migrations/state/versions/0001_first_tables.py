"""The first tables of state.db."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _runs()
    _bodies()
    _records()
    _audit()


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("task_hash", sa.String(), nullable=False),
        sa.Column("revision", sa.String()),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("started_at_ms", sa.BigInteger()),
        sa.Column("finished_at_ms", sa.BigInteger()),
        sa.Column("reason", sa.String()),
        sa.Column("error", sa.LargeBinary()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("parent_run_id", sa.String()),
        sa.Column("root_run_id", sa.String()),
        sa.Column("replay_of", sa.String()),
        sa.Column("chain_depth", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.String()),
        sa.Column("not_before_ms", sa.BigInteger()),
        sa.Column("slot_ms", sa.BigInteger()),
        sa.Column("catchup", sa.Boolean(), nullable=False),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("signal", sa.Integer()),
        sa.Column("pid", sa.Integer()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("runs_created", "runs", ["created_at_ms", "id"])
    op.create_index("runs_task", "runs", ["task_id", "created_at_ms", "id"])
    op.create_index("runs_status", "runs", ["status", "created_at_ms", "id"])
    op.create_index("runs_task_status", "runs", ["task_id", "status", "created_at_ms", "id"])
    _rare_index("runs_parent", ["parent_run_id", "created_at_ms", "id"], "parent_run_id")
    _rare_index("runs_root", ["root_run_id", "created_at_ms", "id"], "root_run_id")
    _rare_index("runs_finished", ["finished_at_ms"], "finished_at_ms")
    _rare_index("runs_slot", ["task_id", "slot_ms"], "slot_ms", unique=True)


def _rare_index(name: str, columns: list[str], set_column: str, *, unique: bool = False) -> None:
    where = sa.text(f"{set_column} IS NOT NULL")
    op.create_index(
        name, "runs", columns, unique=unique, sqlite_where=where, postgresql_where=where
    )


def _bodies() -> None:
    op.create_table(
        "run_payloads",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_values",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("return_value", sa.LargeBinary()),
        sa.Column("output", sa.LargeBinary()),
        sa.Column("error", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("run_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_keys_run_id", "idempotency_keys", ["run_id"])


def _records() -> None:
    op.create_table(
        "kv",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pauses",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "schedule_slots",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("slot_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sqlite_with_rowid=False,
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("surface", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("detail", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )

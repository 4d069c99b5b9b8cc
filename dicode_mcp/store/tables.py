"""The tables, in terms that SQLite and PostgreSQL share. Two databases: state, and logs.

Bodies (parameters, values, outputs, log chunks) are bytes of JSON, so that no database has an
opinion on the characters in them. The tables here and the migrations must say the same; a test
compares them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)

STATE = MetaData()
LOGS = MetaData()

runs = Table(
    "runs",
    STATE,
    Column("id", String, primary_key=True),
    Column("task_id", String, nullable=False),
    Column("status", String, nullable=False),
    Column("trigger", String, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("task_hash", String, nullable=False),
    Column("revision", String),
    Column("actor", String, nullable=False),
    Column("started_at_ms", BigInteger),
    Column("finished_at_ms", BigInteger),
    Column("reason", String),
    Column("error", LargeBinary),
    Column("attempt", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("parent_run_id", String),
    Column("root_run_id", String),
    Column("replay_of", String),
    Column("chain_depth", Integer, nullable=False),
    Column("idempotency_key", String),
    Column("not_before_ms", BigInteger),
    Column("slot_ms", BigInteger),
    Column("catchup", Boolean, nullable=False),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("pid", Integer),
)
"""One row a run, narrow enough to list. ``error`` is the short form; bodies are in run_values."""


def _index_where(name: str, *columns: Column[object], unique: bool = False) -> Index:
    """Index only the rows where the first-named rare column is set: most runs have none."""
    rare = next(c for c in columns if c.nullable)
    where = text(f"{rare.name} IS NOT NULL")
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


Index("runs_created", runs.c.created_at_ms, runs.c.id)
Index("runs_task", runs.c.task_id, runs.c.created_at_ms, runs.c.id)
Index("runs_status", runs.c.status, runs.c.created_at_ms, runs.c.id)
Index("runs_task_status", runs.c.task_id, runs.c.status, runs.c.created_at_ms, runs.c.id)
_index_where("runs_parent", runs.c.parent_run_id, runs.c.created_at_ms, runs.c.id)
_index_where("runs_root", runs.c.root_run_id, runs.c.created_at_ms, runs.c.id)
_index_where("runs_finished", runs.c.finished_at_ms)
_index_where("runs_slot", runs.c.task_id, runs.c.slot_ms, unique=True)

run_payloads = Table(
    "run_payloads",
    STATE,
    Column("run_id", String, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""What a run was started with; no row when that is nothing."""

run_values = Table(
    "run_values",
    STATE,
    Column("run_id", String, primary_key=True),
    Column("return_value", LargeBinary),
    Column("output", LargeBinary),
    Column("error", LargeBinary),
    sqlite_with_rowid=False,
)
"""What a run ended with, whole; no row when the row in ``runs`` says it all."""

idempotency_keys = Table(
    "idempotency_keys",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("run_id", String, nullable=False, index=True),
    Column("created_at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

kv = Table(
    "kv",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

pauses = Table(
    "pauses",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    sqlite_with_rowid=False,
)

source_states = Table(
    "source_states",
    STATE,
    Column("source", String, primary_key=True),
    Column("dev_mode", Boolean, nullable=False),
    Column("local_path", String),
    Column("branch", String),
    Column("pin", String),
    sqlite_with_rowid=False,
)
"""What was decided for a source while the server ran; no row when that is nothing."""

approvals = Table(
    "approvals",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String, nullable=False),
    Column("revision", String),
    sqlite_with_rowid=False,
)

schedule_slots = Table(
    "schedule_slots",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("slot_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    STATE,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String, nullable=False),
    Column("surface", String, nullable=False),
    Column("action", String, nullable=False),
    Column("target", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("detail", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
"""Only ever added to; an id is never used twice."""

meta = Table(
    "meta",
    STATE,
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
    sqlite_with_rowid=False,
)

log_chunks = Table(
    "log_chunks",
    LOGS,
    Column("run_id", String, primary_key=True),
    Column("last_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("max_level", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""Lines in compressed chunks, found by the seq of their last line."""

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
    false,
    text,
)

from dicode_mcp.runs.statistics import ENDED

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
    Column("retry_of", String),
    Column("retry_until_ms", BigInteger),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    Column("cpu_ms", BigInteger),
    Column("tokens", BigInteger),
    Column("waited_ms", BigInteger, nullable=False, server_default=text("0")),
    Column("paused_at_ms", BigInteger),
    Column("limit_key", String),
    Column("origin", String),
    Column("unenforced", String),
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
_index_where("runs_retry", runs.c.retry_of)
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

questions = Table(
    "questions",
    STATE,
    Column("run_id", String, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("key", String),
    Column("message", LargeBinary, nullable=False),
    Column("schema", LargeBinary, nullable=False),
    Column("asked_at_ms", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("answered_at_ms", BigInteger),
    Column("answer", LargeBinary),
    Column("actor", String),
    Column("channel", String),
    sqlite_with_rowid=False,
)
"""What runs asked. Answered without an ``answer`` means declined."""

once_values = Table(
    "once_values",
    STATE,
    Column("run_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""What a run is to do only once although it may start again after an answer.

With an empty key: which values it must not show.
"""

idempotency_keys = Table(
    "idempotency_keys",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("run_id", String, nullable=False, index=True),
    Column("created_at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

Index("idempotency_keys_created", idempotency_keys.c.created_at_ms)

run_days = Table(
    "run_days",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    *(Column(status.value, BigInteger, nullable=False) for status in ENDED),
    Column("duration_ms", BigInteger, nullable=False),
    Column("cpu_ms", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("durations", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""Sums of the runs that ended on a UTC day, by task; kept when the runs are pruned.

They are written with the end of each run, so they are exact, and blind to runs that are still on.
"""
Index("run_days_day", run_days.c.day, run_days.c.task_id)

join_arrivals = Table(
    "join_arrivals",
    STATE,
    Column("root_run_id", String, primary_key=True),
    Column("task_id", String, primary_key=True),
    Column("source", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("fits", Boolean, nullable=False),
    sqlite_with_rowid=False,
)
"""The newest end of each source that a join has not used yet; empty but for trees that are on."""
Index("join_arrivals_run", join_arrivals.c.run_id)

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

notices = Table(
    "notices",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("since_ms", BigInteger),
    Column("count", BigInteger, nullable=False),
    Column("told_ms", BigInteger),
    Column("told", String, nullable=False),
    Column("undelivered", BigInteger, nullable=False),
    Column("delivery_ms", BigInteger),
    Column("delivery_run_id", String),
    Column("delivery_error", LargeBinary),
    sqlite_with_rowid=False,
)
"""What people were told of a task's failures, and whether that got through."""

budget_days = Table(
    "budget_days",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("day", String, primary_key=True),
    Column("runs", BigInteger, nullable=False),
    Column("cpu_ms", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What tasks with a budget have spent, by local day (``2026-05-01``)."""

accesses = Table(
    "accesses",
    STATE,
    Column("task_id", String, primary_key=True),
    Column("seen", String, nullable=False),
)
"""What the last runs of a task used, as ``runs.accesses`` writes it."""

hook_signatures = Table(
    "hook_signatures",
    STATE,
    Column("key", String, primary_key=True),
    Column("expires_ms", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)
"""Hashes of signatures of webhooks that were used, for as long as they would be taken."""

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
    Column("chain", String),
    sqlite_autoincrement=True,
)
"""Only ever added to; an id is never used twice."""

secrets = Table(
    "secrets",
    STATE,
    Column("name", String, primary_key=True),
    Column("sealed", String, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("actor", String, nullable=False),
    sqlite_with_rowid=False,
)
"""Sealed values by name; names that begin with a dot are the server's own."""

bearer_keys = Table(
    "bearer_keys",
    STATE,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("scopes", String, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("created_by", String, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("last_used_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    sqlite_with_rowid=False,
)
"""Keys of callers: what they are is kept as a digest only."""

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

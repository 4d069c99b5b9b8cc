"""Many finished runs in a data dir, written past the server but into its own tables."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from dicode_mcp.clock import SystemClock
from dicode_mcp.store.sqlite import SqliteStore

TASKS = 100
_SPAN_MS = 7 * 24 * 3600 * 1000
"""The runs are of the last seven days, evenly."""

_FILL = """
INSERT INTO runs (id, task_id, status, trigger, created_at_ms, task_hash, actor, started_at_ms,
                  finished_at_ms, reason, attempt, fence, priority, chain_depth, catchup)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :number - 1),
     t(i, at) AS (SELECT i, CAST(:first + i * :step AS INTEGER) FROM n)
SELECT lower(printf('%010x', at) || hex(randomblob(8))),
       printf('report-%05d', i % :tasks),
       CASE WHEN i % 50 = 0 THEN 'timeout' WHEN i % 12 = 0 THEN 'failure' ELSE 'success' END,
       'cron', at, hex(randomblob(16)), 'cron', at + 1, at + 900,
       CASE WHEN i % 50 = 0 THEN 'timeout' WHEN i % 12 = 0 THEN 'exception' END,
       1, 1, 0, 0, 0
FROM t
"""


_BODIES = (
    'INSERT INTO run_payloads (run_id, body) SELECT id, CAST(printf(\'{"params": {}, "input":'
    ' "%0200d", "request": null}\', 0) AS BLOB) FROM runs',
    "INSERT INTO run_values (run_id, return_value) "
    "SELECT id, CAST(printf('\"%0300d\"', 0) AS BLOB) FROM runs",
)
KEPT = "defaults: {retention: {age: 3650d, runs: 100000000}}\n"
"""For the configuration of a server whose many runs are to stay."""


def seed_runs(data: Path, number: int, *, bodies: bool = False) -> None:
    """Make a store in ``data`` and fill it with ``number`` ended runs of ``TASKS`` tasks.

    ``bodies`` gives each an input and a return value.
    """
    asyncio.run(_make(data))
    now = time.time_ns() // 1_000_000
    values = {"number": number, "first": now - _SPAN_MS, "step": _SPAN_MS / number, "tasks": TASKS}
    with closing(sqlite3.connect(data / "state.db", isolation_level=None)) as database:
        indexes = database.execute(
            "SELECT name, sql FROM sqlite_master "
            "WHERE type = 'index' AND tbl_name = 'runs' AND sql IS NOT NULL"
        ).fetchall()
        # Indexes are made at the end: a million sorted inserts instead of nine million random.
        database.execute("PRAGMA synchronous = OFF")
        for name, _ in indexes:
            database.execute(f'DROP INDEX "{name}"')
        database.execute(_FILL, values)
        for sql in _BODIES if bodies else ():
            database.execute(sql)
        for _, sql in indexes:
            database.execute(sql)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _make(data: Path) -> None:
    async with SqliteStore.open(data, SystemClock(), ballast_bytes=0):
        pass

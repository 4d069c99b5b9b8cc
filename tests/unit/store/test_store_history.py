"""History on SQLite: its plans, what a migration counts, and what deleting gives back."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from dicode_mcp.protocols import DayQuery, PruneQuery, RunQuery
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.runs.statistics import DAY_MS, Tally, day_of, tally_of
from dicode_mcp.store.codec import place_cursor
from dicode_mcp.store.database import Database
from dicode_mcp.store.rows import days, listing, pruning, runs
from dicode_mcp.store.schema import STATE_SCHEMA, bring_up
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import START_MS, FakeClock

TODAY = day_of(START_MS)


@pytest.fixture
def connection(tmp_path: Path) -> Generator[Connection]:
    database = Database(tmp_path / "state.db", "FULL")
    database.make_private()
    made = database.writer()
    bring_up(made, STATE_SCHEMA, "state.db")
    yield made
    made.close()


def a_run(status: RunStatus = RunStatus.SUCCESS, **changes: Any) -> Run:
    return Run(
        new_run_id(START_MS),
        "t",
        status,
        Trigger.MCP,
        START_MS,
        started_at_ms=START_MS,
        finished_at_ms=START_MS + 100,
        **changes,
    )


CURSOR = place_cursor(1, "a")
MANY = [f"r{number}" for number in range(200)]
"""With so many ids the planner takes other ways than with one."""
SOME = frozenset({RunStatus.FAILURE, RunStatus.LOST})
STEPS: dict[str, Callable[[Connection], object]] = {
    "tasks with runs": lambda c: pruning.tasks(c, "", 5),
    "prunable by age": lambda c: pruning.prunable(c, PruneQuery("t", START_MS, cursor=CURSOR)),
    "prunable by number": lambda c: pruning.prunable(c, PruneQuery("t", None, 0)),
    "prunable by both": lambda c: pruning.prunable(c, PruneQuery("t", START_MS, 0, cursor=CURSOR)),
    "size": lambda c: pruning.size(c, MANY),
    "with input": lambda c: pruning.with_input(c, "t", START_MS + 900, 9, CURSOR),
    "drop inputs": lambda c: pruning.drop_inputs(c, MANY),
    "drop keys": lambda c: pruning.drop_keys(c, START_MS + 900, 9),
    "pin": lambda c: pruning.pin(c, _some_id(c), True),
    "remove": lambda c: runs.remove(c, [_some_id(c), *MANY]),
    "count an end": lambda c: days.add(c, a_run()),
    "days of a task": lambda c: days.page(c, DayQuery(("t",), TODAY, TODAY)),
    "days of all": lambda c: days.page(c, DayQuery(None, TODAY, TODAY)),
    "offset": lambda c: listing.page(c, RunQuery(offset=1)),
    "offset of a task": lambda c: listing.page(c, RunQuery(task_id="t", offset=1)),
    "offset of statuses": lambda c: listing.page(c, RunQuery(statuses=SOME, offset=1)),
    "count of all": lambda c: listing.matching(c, RunQuery(), 5),
    "count of statuses": lambda c: listing.matching(c, RunQuery(task_id="t", statuses=SOME), 5),
    "values": lambda c: listing.return_values(c, MANY, 9),
}


_IS_BOUNDED = re.compile(r"SCAN (?:runs USING |\(subquery|anon_|(?:\d+ )?CONSTANT ROW)").match
"""A scan of runs by an index stops at the LIMIT; the others are of what a question made itself."""


def _some_id(connection: Connection) -> str:
    found = connection.exec_driver_sql("SELECT id FROM runs WHERE status = 'success' LIMIT 1")
    return str(found.scalar_one())


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_no_question_reads_a_whole_table(
    step: Callable[[Connection], object], connection: Connection
) -> None:
    for _ in range(3):
        runs.add(connection, a_run(idempotency_key=new_run_id()), b"{}")
    runs.add(connection, a_run(RunStatus.QUEUED), b"{}")
    said: list[str] = []
    driver = cast("sqlite3.Connection", connection.connection.driver_connection)
    driver.set_trace_callback(said.append)
    step(connection)
    driver.set_trace_callback(None)
    asked = [sql for sql in said if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT")]
    assert asked
    for sql in asked:
        plan = [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")]
        scans = [line for line in plan if line.startswith("SCAN ")]
        bad = [s for s in scans if not _IS_BOUNDED(s)]
        if "LIMIT" not in sql and "IN ('queued'" not in sql:
            # The runs that ended are nearly all of them.
            bad += [line for line in plan if "(status=?)" in line]
        if "FROM runs" in sql:
            bad += [line for line in plan if "TEMP B-TREE" in line and "anon_" not in sql]
        assert not bad, (sql, plan)


async def test_a_migrated_history_has_the_same_sums_as_one_that_was_counted(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = Database(path, "FULL")
    database.make_private()
    dice = random.Random(3)
    ended = [status for status in RunStatus if status.ended]
    rows: list[Run] = []
    for number in range(400):
        at = START_MS - dice.randint(0, 5 * DAY_MS)
        begun = dice.random() < 0.8
        rows.append(
            Run(
                f"r{number}",
                dice.choice(["a", "b/c"]),
                dice.choice(ended),
                Trigger.CRON,
                at,
                started_at_ms=at if begun else None,
                finished_at_ms=at + dice.choice([0, 1, 37, 60_000, DAY_MS]),
                cpu_ms=dice.choice([None, 5]),
            )
        )
    rows.append(Run("on", "a", RunStatus.RUNNING, Trigger.CRON, START_MS, started_at_ms=START_MS))
    with closing(database.writer()) as old:
        config = Config()
        config.set_main_option("script_location", str(STATE_SCHEMA.migrations))
        config.attributes["connection"] = old
        old.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(config, "0004")
        for run in rows:
            old.exec_driver_sql(
                "INSERT INTO runs (id, task_id, status, trigger, created_at_ms, task_hash, actor,"
                " started_at_ms, finished_at_ms, cpu_ms, attempt, fence, priority, chain_depth,"
                " catchup) VALUES (?, ?, ?, 'cron', ?, '', 'cron', ?, ?, ?, 1, 1, 0, 0, 0)",
                (
                    run.id,
                    run.task_id,
                    run.status.value,
                    run.created_at_ms,
                    run.started_at_ms,
                    run.finished_at_ms,
                    run.cpu_ms,
                ),
            )
        old.exec_driver_sql("COMMIT")
    wanted: dict[tuple[str, int], Tally] = {}
    for run in rows[:-1]:
        key = (run.task_id, day_of(run.finished_at_ms or 0))
        wanted[key] = wanted.get(key, Tally()).plus(tally_of(run))
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0) as store:
        page = await store.run_days(DayQuery(limit=500))
        assert {(d.task_id, d.day): d.tally for d in page.days} == wanted
        assert page.totals.runs == 400


async def test_deleting_gives_the_disk_its_room_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0) as store:
        for _ in range(120):
            run = a_run(RunStatus.QUEUED)
            await store.add_run(run, Payload(input="x" * 20_000))
            await store.finish_run(run, Outcome(RunStatus.CANCELLED, START_MS + 1))
        with closing(sqlite3.connect(path)) as disk:
            before = disk.execute("PRAGMA page_count").fetchone()[0]
        page = await store.prunable_runs(PruneQuery("t", keep=10, limit=200))
        assert await store.delete_runs(page.items) == 110
        with closing(sqlite3.connect(path)) as disk:
            after = disk.execute("PRAGMA page_count").fetchone()[0]
    assert after < before / 3

"""What is particular to the store on SQLite: its files, its plans, what a restart finds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import LogQuery, Pause, RunQuery
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.store.database import Database
from dicode_mcp.store.rows import listing
from dicode_mcp.store.schema import STATE_SCHEMA, bring_up
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import START_MS, FakeClock


def a_run(task_id: str = "t", **changes: Any) -> Run:
    run_id = new_run_id(START_MS)
    return Run(run_id, task_id, RunStatus.QUEUED, Trigger.MCP, START_MS, **changes)


def lines(first: int, last: int, text: str = "line") -> list[LogLine]:
    return [LogLine(n, START_MS, Level.INFO, f"{text} {n}") for n in range(first, last + 1)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[SqliteStore]:
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0) as opened:
        yield opened


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_every_file_is_for_the_owner_alone(store: SqliteStore, tmp_path: Path) -> None:
    await store.add_run(a_run(), Payload())
    await store.append_logs("r", lines(1, 1))
    await store.flush_logs("r")
    found = modes(tmp_path)
    assert {"state.db", "state.db-wal", "logs.db", "logs.db-wal"} <= found.keys()
    assert set(found.values()) == {0o600}


async def test_a_readable_file_is_made_private_again(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch(0o644)
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0):
        assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    run = a_run(idempotency_key="k", slot_ms=START_MS)
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0) as store:
        instance = await store.instance_id()
        await store.add_run(run, Payload({"n": 1}))
        await store.kv_set("t", "k", "1", now_ms=START_MS)
        await store.set_pause(Pause("t", START_MS, "me"))
        await store.append_logs(run.id, lines(1, 1_500))
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0) as store:
        assert await store.instance_id() == instance
        assert await store.get_run(run.id) == run
        assert await store.get_payload(run.id) == Payload({"n": 1})
        assert await store.kv_get("t", "k") == "1"
        assert set(await store.pauses()) == {"t"}
        assert await store.schedule_slots() == {"t": START_MS}
        page = await store.read_logs(run.id, LogQuery(limit=5_000))
        assert page.lines == tuple(lines(1, 1_500))


async def test_two_data_dirs_have_two_instance_ids(tmp_path: Path) -> None:
    found: set[str] = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        async with SqliteStore.open(tmp_path / name, FakeClock(), ballast_bytes=0) as store:
            found.add(await store.instance_id())
    assert len(found) == 2


async def test_a_closed_store_refuses_clearly(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock(), ballast_bytes=0) as store:
        pass
    for call in (
        store.add_run(a_run(), Payload()),
        store.get_run("r"),
        store.append_logs("r", lines(1, 1)),
    ):
        with pytest.raises(DicodeError) as caught:
            await call
        assert caught.value.code is Code.SHUTTING_DOWN


async def test_unflushed_lines_reach_the_disk_by_themselves(
    store: SqliteStore, tmp_path: Path
) -> None:
    await store.append_logs("r", lines(1, 3))
    disk = sqlite3.connect(tmp_path / "logs.db")
    for _ in range(1_000):
        if disk.execute("SELECT sum(lines) FROM log_chunks").fetchone() == (3,):
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the lines were not written")
    disk.close()


async def test_lines_are_never_missed_or_repeated_while_they_move_to_disk(
    store: SqliteStore,
) -> None:
    async def write() -> None:
        for first in range(1, 20_001, 50):
            await store.append_logs("r", lines(first, first + 49))
            await asyncio.sleep(0)

    seen: list[int] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        while len(seen) < 20_000:
            # A read that memory answers gives the loop to nobody.
            await asyncio.sleep(0)
            page = await store.read_logs("r", LogQuery(after=len(seen), limit=700))
            seen.extend(line.seq for line in page.lines)
            tail = await store.read_logs("r", LogQuery(tail=1_200))
            seqs = [line.seq for line in tail.lines]
            assert not seqs or seqs == list(range(seqs[0], seqs[-1] + 1))
    assert seen == list(range(1, 20_001))


async def test_a_chatty_run_of_single_lines_makes_few_chunks(
    store: SqliteStore, tmp_path: Path
) -> None:
    for n in range(1, 301):
        await store.append_logs("r", lines(n, n))
        store._book._flush(["r"])  # pyright: ignore[reportPrivateUsage]
        await store._logs.run(lambda _c: None)  # pyright: ignore[reportPrivateUsage]
    await store.flush_logs("r")
    disk = sqlite3.connect(tmp_path / "logs.db")
    (chunks,) = disk.execute("SELECT count(*) FROM log_chunks").fetchone()
    disk.close()
    assert chunks <= 10
    assert (await store.read_logs("r", LogQuery())).lines == tuple(lines(1, 300))


async def test_deleting_runs_gives_room_back_to_the_disk(
    store: SqliteStore, tmp_path: Path
) -> None:
    runs: list[Run] = []
    for n in range(20):
        run = await store.add_run(a_run(), Payload({"x": "y" * 50_000}))
        run = await store.finish_run(run, Outcome(RunStatus.CANCELLED, START_MS))
        # Text that does not compress, so that there is something to give back.
        noise = "".join(chr(0x4E00 + (n * 7_919 + i * 104_729) % 20_000) for i in range(20_000))
        await store.append_logs(run.id, [LogLine(1, START_MS, Level.INFO, noise)])
        await store.flush_logs(run.id)
        runs.append(run)

    def pages(name: str) -> int:
        disk = sqlite3.connect(tmp_path / name)
        (count,) = disk.execute("PRAGMA page_count").fetchone()
        disk.close()
        return int(count)

    before = {name: pages(name) for name in ("state.db", "logs.db")}
    assert await store.delete_runs([run.id for run in runs]) == 20
    for name, count in before.items():
        assert pages(name) < count / 2, name


FAILED = frozenset({RunStatus.FAILURE})
QUERIES = {
    "all": RunQuery(),
    "next page": RunQuery(cursor="WzEsImEiXQ"),
    "since": RunQuery(since_ms=1),
    "task": RunQuery(task_id="t"),
    "task next page": RunQuery(task_id="t", since_ms=1, cursor="WzEsImEiXQ"),
    "statuses": RunQuery(statuses=FAILED | {RunStatus.LOST}, since_ms=1),
    "task and status": RunQuery(task_id="t", statuses=FAILED),
    "root": RunQuery(root_run_id="r", task_id="t", statuses=FAILED),
    "parent": RunQuery(parent_run_id="r", root_run_id="q"),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_every_listing_is_read_off_an_index_in_order(query: RunQuery, tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db", "FULL")
    database.make_private()
    connection: Connection = database.writer()
    bring_up(connection, STATE_SCHEMA, "state.db")
    statements = listing._statements(query, 10)  # pyright: ignore[reportPrivateUsage]
    assert statements
    for statement in statements:
        sql = statement.compile(connection, compile_kwargs={"literal_binds": True})
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")
        steps = [str(row[3]) for row in plan]
        assert len(steps) == 1, steps
        assert "USING INDEX runs_" in steps[0], steps
        if query.parent_run_id or query.root_run_id:
            assert "runs_parent" in steps[0] or "runs_root" in steps[0], steps
    connection.close()


async def test_a_store_locked_by_another_process_still_reads(tmp_path: Path) -> None:
    async with SqliteStore.open(
        tmp_path, SystemClock(), ballast_bytes=0, lock_timeout_s=0.2
    ) as store:
        run = await store.add_run(a_run(), Payload())
        other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DicodeError) as caught:
            await store.start_run(run.id, now_ms=START_MS, task_hash="", revision=None)
        assert caught.value.code is Code.STORAGE_UNAVAILABLE
        assert await store.get_run(run.id) == run
        other.close()
        started = await store.start_run(run.id, now_ms=START_MS, task_hash="", revision=None)
        assert started.status is RunStatus.RUNNING

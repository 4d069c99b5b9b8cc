"""The writer thread: what is grouped, what fails alone, what waits."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.store.answers import Answers
from dicode_mcp.store.database import Database
from dicode_mcp.store.reserve import Reserve
from dicode_mcp.store.writer import GroupWriter, Work


def raw(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def insert(n: int, size: int = 1) -> Work[int]:
    def work(connection: Connection) -> int:
        raw(connection).execute("INSERT INTO t VALUES (?, zeroblob(?))", (n, size))
        return n

    return work


def rows(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]
    finally:
        connection.close()


class Rig:
    """A writer on a table ``t(n, body)``, and ways to disturb it."""

    def __init__(self, path: Path, writer: GroupWriter, connection: Connection) -> None:
        self.path = path
        self.writer = writer
        self.connection = connection

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """Keep the thread busy, so that what is queued meanwhile becomes one batch."""
        gate, entered = threading.Event(), threading.Event()

        def wait(_connection: Connection) -> None:
            entered.set()
            assert gate.wait(10)

        blocker = self.writer.submit(wait)
        assert await asyncio.to_thread(entered.wait, 10)
        try:
            yield
        finally:
            gate.set()
            await blocker

    async def do(self, sql: str) -> None:
        await self.writer.run(lambda c: raw(c).execute(sql).fetchall())


@asynccontextmanager
async def a_rig(folder: Path, reserve: Reserve | None = None) -> AsyncGenerator[Rig]:
    database = Database(folder / "t.db", "FULL")
    database.make_private()
    connection = database.writer()
    raw(connection).execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)")
    writer = GroupWriter(
        "test-writer",
        connection,
        Answers(asyncio.get_running_loop()),
        SystemClock(),
        reserve,
        where="t.db",
        lock_timeout_s=0.3,
    )
    writer.start()
    try:
        yield Rig(folder / "t.db", writer, connection)
    finally:
        await writer.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with a_rig(tmp_path) as made:
        yield made


async def test_what_is_queued_together_is_committed_once(rig: Rig) -> None:
    statements: list[str] = []
    async with rig.held():
        waiting = [rig.writer.submit(insert(n)) for n in range(50)]
        raw(rig.connection).set_trace_callback(statements.append)
    assert await asyncio.gather(*waiting) == list(range(50))
    # One for the work that held the thread, one for the fifty.
    assert statements.count("COMMIT") == 2
    assert rows(rig.path) == list(range(50))


async def test_an_answer_is_given_after_the_row_is_on_disk(rig: Rig) -> None:
    for n in range(20):
        await rig.writer.run(insert(n))
        assert rows(rig.path)[-1] == n


async def test_one_failing_piece_of_work_does_not_harm_its_neighbours(rig: Rig) -> None:
    def half_done(connection: Connection) -> None:
        insert(100)(connection)
        raise DicodeError(Code.CONFLICT, "no")

    def broken(connection: Connection) -> None:
        raw(connection).execute("INSERT INTO nowhere VALUES ('s3cret')")

    async with rig.held():
        waiting: list[asyncio.Future[Any]] = [
            rig.writer.submit(insert(1)),
            rig.writer.submit(half_done),
            rig.writer.submit(insert(1)),
            rig.writer.submit(broken),
            rig.writer.submit(insert(2)),
        ]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    codes = [a.code if isinstance(a, DicodeError) else a for a in answers]
    assert codes == [1, Code.CONFLICT, Code.CONFLICT, Code.INTERNAL, 2]
    assert "s3cret" not in str(answers[3])
    assert rows(rig.path) == [1, 2]


async def test_a_batch_too_big_for_the_disk_stores_what_fits(rig: Rig) -> None:
    await rig.do("PRAGMA max_page_count = 40")
    async with rig.held():
        waiting = [
            rig.writer.submit(insert(1)),
            rig.writer.submit(insert(2, 1_000_000)),
            rig.writer.submit(insert(3)),
        ]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert answers[0::2] == [1, 3]
    assert isinstance(answers[1], DicodeError)
    assert answers[1].code is Code.STORAGE_FULL
    assert rows(rig.path) == [1, 3]
    await rig.do("PRAGMA max_page_count = 4000")
    await rig.writer.run(insert(2, 1_000_000))
    assert rows(rig.path) == [1, 2, 3]


async def test_a_failing_commit_fails_its_work_alone_and_later_work_goes_on(rig: Rig) -> None:
    await rig.do("CREATE TABLE child (n REFERENCES t(n) DEFERRABLE INITIALLY DEFERRED)")
    # The pragma has no effect inside a transaction, which every piece of work is in.
    async with rig.held():
        pass
    raw(rig.connection).execute("PRAGMA foreign_keys = ON")

    def orphan(connection: Connection) -> None:
        raw(connection).execute("INSERT INTO child VALUES (99)")

    async with rig.held():
        waiting: list[asyncio.Future[Any]] = [
            rig.writer.submit(insert(1)),
            rig.writer.submit(orphan),
        ]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert answers[0] == 1
    assert isinstance(answers[1], DicodeError)
    assert rows(rig.path) == [1]
    assert await rig.writer.run(insert(2)) == 2


async def test_a_locked_database_makes_writes_wait_and_then_fail_while_the_loop_runs(
    rig: Rig,
) -> None:
    other = sqlite3.connect(rig.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    loop = asyncio.get_running_loop()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        loop.call_later(0.01, tick)

    tick()
    waiting = [rig.writer.submit(insert(n)) for n in range(3)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    codes = {a.code if isinstance(a, DicodeError) else a for a in answers}
    assert codes == {Code.STORAGE_UNAVAILABLE}
    assert ticks >= 10
    other.execute("ROLLBACK")
    other.close()
    assert await rig.writer.run(insert(7)) == 7
    assert rows(rig.path) == [7]


async def test_a_lock_given_back_in_time_is_only_a_delay(rig: Rig) -> None:
    other = sqlite3.connect(rig.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = rig.writer.submit(insert(1))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    other.execute("COMMIT")
    other.close()
    assert await waiting == 1


async def test_work_is_done_though_its_caller_stopped_waiting(rig: Rig) -> None:
    async with rig.held():
        caller = asyncio.ensure_future(rig.writer.run(insert(1)))
        await asyncio.sleep(0)
        caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await rig.writer.run(insert(2))
    assert rows(rig.path) == [1, 2]


async def test_closing_does_what_is_queued_and_then_refuses(tmp_path: Path) -> None:
    async with a_rig(tmp_path) as rig:
        waiting = [rig.writer.submit(insert(n)) for n in range(1_200)]
    assert await asyncio.gather(*waiting) == list(range(1_200))
    assert len(rows(tmp_path / "t.db")) == 1_200
    with pytest.raises(DicodeError) as caught:
        await rig.writer.run(insert(1))
    assert caught.value.code is Code.SHUTTING_DOWN


async def test_on_a_full_disk_the_ballast_goes_and_only_essential_work_is_done(
    tmp_path: Path,
) -> None:
    reserve = Reserve(tmp_path, SystemClock(), size=64 * 1024, min_free=0)
    reserve.prepare()
    async with a_rig(tmp_path, reserve) as rig:
        await rig.do("PRAGMA max_page_count = 40")
        with pytest.raises(DicodeError) as caught:
            await rig.writer.run(insert(1, 1_000_000))
        assert caught.value.code is Code.STORAGE_FULL
        assert not reserve.path.exists()
        with pytest.raises(DicodeError) as caught:
            await rig.writer.run(insert(2))
        assert caught.value.code is Code.STORAGE_FULL
        assert await rig.writer.run(insert(3), essential=True) == 3
        assert rows(rig.path) == [3]

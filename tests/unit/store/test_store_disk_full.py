"""A disk that fills up and is emptied again: a small file system, mounted for the test."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import LogQuery, RunQuery
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.store.reserve import MIB
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import START_MS, FakeClock


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount; test_store_writer covers a full database")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Use up the disk to the last block."""
    filler = folder / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (64 * 1024, 4096, 1):
            with suppress(OSError):
                while os.write(fd, bytes(size)):
                    pass
    finally:
        os.close(fd)
    return filler


def a_run() -> Run:
    return Run(new_run_id(START_MS), "t", RunStatus.QUEUED, Trigger.MCP, START_MS)


async def add_until_full(store: SqliteStore) -> list[Run]:
    added: list[Run] = []

    async def add_many() -> None:
        for _ in range(2_000):
            added.append(await store.add_run(a_run(), Payload({"x": "y" * 20_000})))

    with pytest.raises(DicodeError) as caught:
        await add_many()
    assert caught.value.code is Code.STORAGE_FULL
    return added


async def test_a_full_disk_refuses_new_runs_ends_old_ones_and_recovers(small_disk: Path) -> None:
    clock = FakeClock()
    ballast = small_disk / "ballast"
    async with SqliteStore.open(
        small_disk, clock, ballast_bytes=4 * MIB, ballast_min_free=0
    ) as store:
        assert ballast.stat().st_blocks * 512 == 4 * MIB
        running = await store.add_run(a_run(), Payload())
        running = await store.start_run(running.id, now_ms=START_MS, task_hash="", revision=None)
        await store.append_logs(running.id, [LogLine(1, START_MS, Level.INFO, "before")])
        await store.flush_logs(running.id)

        filler = fill(small_disk)
        added = await add_until_full(store)
        assert not ballast.exists()

        outcome = Outcome(RunStatus.SUCCESS, START_MS, return_value='"' + "v" * 100_000 + '"')
        ended = await store.finish_run(running, outcome)
        assert await store.get_run(running.id) == ended
        assert len((await store.list_runs(RunQuery(limit=1_000))).items) == len(added) + 1
        with pytest.raises(DicodeError) as caught:
            await store.add_run(a_run(), Payload())
        assert caught.value.code is Code.STORAGE_FULL
        await store.append_logs(
            running.id, [LogLine(n, START_MS, Level.INFO, "lost") for n in (2, 3)]
        )
        await store.flush_logs(running.id)

        filler.unlink()
        clock.advance(5)
        fresh = await store.add_run(a_run(), Payload())
        assert await store.get_run(fresh.id) == fresh
        assert ballast.stat().st_blocks * 512 == 4 * MIB
        await store.append_logs(running.id, [LogLine(4, START_MS, Level.INFO, "after")])
        await store.flush_logs(running.id)

    async with SqliteStore.open(small_disk, clock, ballast_bytes=0) as store:
        page = await store.read_logs(running.id, LogQuery())
        assert [line.seq for line in page.lines] == [1, 3, 4]
        assert page.lines[1].message == "[2 log lines were not kept: the disk was full]"
        for run in added:
            assert await store.get_run(run.id) == run
    for name in ("state.db", "logs.db"):
        disk = sqlite3.connect(small_disk / name)
        assert disk.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        disk.close()


async def test_without_ballast_a_full_disk_recovers_too(small_disk: Path) -> None:
    async with SqliteStore.open(small_disk, FakeClock(), ballast_bytes=0) as store:
        filler = fill(small_disk)
        added = await add_until_full(store)
        filler.unlink()
        fresh = await store.add_run(a_run(), Payload())
        assert len((await store.list_runs(RunQuery(limit=1_000))).items) == len(added) + 1
        assert await store.delete_runs([fresh.id]) == 0


async def test_a_start_on_a_full_disk_uses_the_ballast(small_disk: Path) -> None:
    clock = FakeClock()
    async with SqliteStore.open(
        small_disk, clock, ballast_bytes=4 * MIB, ballast_min_free=0
    ) as store:
        run = await store.add_run(a_run(), Payload())
    fill(small_disk)
    async with SqliteStore.open(
        small_disk, clock, ballast_bytes=4 * MIB, ballast_min_free=0
    ) as store:
        assert await store.get_run(run.id) == run
        with pytest.raises(DicodeError) as caught:
            await store.add_run(a_run(), Payload())
        assert caught.value.code is Code.STORAGE_FULL
        ended = await store.finish_run(run, Outcome(RunStatus.CANCELLED, START_MS))
        assert ended.status is RunStatus.CANCELLED


async def test_a_start_without_a_free_block_says_that_the_disk_is_full(small_disk: Path) -> None:
    async with SqliteStore.open(small_disk, FakeClock(), ballast_bytes=0):
        pass
    fill(small_disk)
    with pytest.raises(DicodeError) as caught:
        async with SqliteStore.open(small_disk, FakeClock(), ballast_bytes=0):
            pass
    assert caught.value.code is Code.STORAGE_FULL

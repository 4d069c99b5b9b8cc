"""Lines between runs and disk, with a disk that the test opens and shuts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.store.faults import storage_full
from dicode_mcp.store.log_book import HELD_BYTES, OPEN_LINES, Batch, LogBook


class SlowDisk:
    """Remembers what it is given; each write ends when the test says how."""

    def __init__(self) -> None:
        self.writes: list[tuple[dict[str, Batch], asyncio.Future[None]]] = []
        self.written = asyncio.Event()

    def write(self, batches: Mapping[str, Batch]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writes.append((dict(batches), future))
        self.written.set()
        return future

    async def next(self) -> tuple[dict[str, Batch], asyncio.Future[None]]:
        """Wait for the next write."""
        while not self.writes:
            self.written.clear()
            await asyncio.wait_for(self.written.wait(), 10)
        return self.writes.pop(0)


def lines(first: int, last: int, text: str = "x") -> list[LogLine]:
    return [LogLine(n, n, Level.INFO, text) for n in range(first, last + 1)]


def seqs(found: tuple[LogLine, ...]) -> list[int]:
    return [line.seq for line in found]


@pytest.fixture
async def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
async def book(disk: SlowDisk) -> LogBook:
    return LogBook(disk.write)


async def test_lines_go_to_disk_by_themselves_within_a_second(
    book: LogBook, disk: SlowDisk
) -> None:
    await book.append("a", lines(1, 2))
    await book.append("b", lines(1, 1))
    async with asyncio.timeout(5):
        batches, done = await disk.next()
    assert {run: seqs(batch.lines) for run, batch in batches.items()} == {"a": [1, 2], "b": [1]}
    done.set_result(None)


async def test_a_full_chunk_goes_at_once(book: LogBook, disk: SlowDisk) -> None:
    await book.append("a", lines(1, 999))
    assert not disk.writes
    await book.append("a", lines(1_000, 1_000))
    assert len(disk.writes) == 1


async def test_lines_stay_readable_in_order_while_they_are_written(
    book: LogBook, disk: SlowDisk
) -> None:
    await book.append("a", lines(1, 1_000))
    await book.append("a", lines(1_001, 1_003))
    assert seqs(book.held("a")) == list(range(1, 1_004))
    _, done = await disk.next()
    done.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seqs(book.held("a")) == [1_001, 1_002, 1_003]


async def test_a_run_has_one_write_under_way(book: LogBook, disk: SlowDisk) -> None:
    await book.append("a", lines(1, 1_000))
    await book.append("a", lines(1_001, 2_000))
    batches, done = await disk.next()
    assert not disk.writes
    done.set_result(None)
    following, done = await disk.next()
    assert seqs(following["a"].lines)[0] == 1_001
    assert seqs(batches["a"].lines)[-1] == 1_000
    done.set_result(None)


async def test_small_writes_of_a_run_grow_one_chunk(book: LogBook, disk: SlowDisk) -> None:
    async def write(first: int, last: int) -> Batch:
        await book.append("a", lines(first, last))
        batches, done = await disk.next()
        done.set_result(None)
        return batches["a"]

    assert (await write(1, 2)).open_seq == 0
    grown = await write(3, OPEN_LINES)
    assert (seqs(grown.lines)[0], grown.open_seq) == (1, 2)
    fresh = await write(OPEN_LINES + 1, OPEN_LINES + 1)
    assert (seqs(fresh.lines), fresh.open_seq) == ([OPEN_LINES + 1], 0)


async def test_flush_returns_when_all_lines_are_down_and_then_forgets_the_run(
    book: LogBook, disk: SlowDisk
) -> None:
    await book.append("a", lines(1, 1_000))
    await book.append("a", lines(1_001, 1_001))
    flushing = asyncio.ensure_future(book.flush("a"))
    for _ in range(2):
        _, done = await disk.next()
        assert not flushing.done()
        done.set_result(None)
    await asyncio.wait_for(flushing, 10)
    assert book.held("a") == ()


async def test_a_cancelled_flush_leaves_the_write_alone(book: LogBook, disk: SlowDisk) -> None:
    await book.append("a", lines(1, 3))
    flushing = asyncio.ensure_future(book.flush("a"))
    _, done = await disk.next()
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    assert not done.cancelled()
    done.set_result(None)


async def test_lines_the_disk_refuses_are_counted_in_one_line(
    book: LogBook, disk: SlowDisk
) -> None:
    await book.append("a", lines(1, 1_000))
    _, done = await disk.next()
    await book.append("a", lines(1_001, 1_002))
    done.set_exception(storage_full("logs.db"))
    flushing = asyncio.ensure_future(book.flush("a"))
    again, done = await disk.next()
    done.set_exception(storage_full("logs.db"))
    await asyncio.wait_for(flushing, 10)
    assert seqs(again["a"].lines) == [1_000, 1_001, 1_002]
    assert book.dropped_lines == 1_002

    (gap,) = book.held("a")
    assert (gap.seq, gap.level) == (1_002, Level.WARN)
    assert gap.message == "[1,002 log lines were not kept: the disk was full]"

    await book.append("a", lines(1_003, 1_003))
    flushing = asyncio.ensure_future(book.flush("a"))
    final, done = await disk.next()
    done.set_result(None)
    await asyncio.wait_for(flushing, 10)
    assert final["a"].lines == (gap, *lines(1_003, 1_003))
    assert book.held("a") == ()


async def test_writers_wait_while_too_much_is_not_on_disk(book: LogBook, disk: SlowDisk) -> None:
    await book.append("a", lines(1, 1, "x" * (HELD_BYTES + 1)))
    _, done = await disk.next()
    more = asyncio.ensure_future(book.append("b", lines(1, 1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not more.done()
    done.set_result(None)
    await asyncio.wait_for(more, 10)
    assert seqs(book.held("b")) == [1]


async def test_closing_writes_everything_and_takes_no_more(book: LogBook, disk: SlowDisk) -> None:
    for run in ("a", "b"):
        await book.append(run, lines(1, 2))
    closing = asyncio.ensure_future(book.close())
    batches, done = await disk.next()
    assert set(batches) == {"a", "b"}
    done.set_result(None)
    await asyncio.wait_for(closing, 10)
    with pytest.raises(DicodeError) as caught:
        await book.append("a", lines(3, 3))
    assert caught.value.code is Code.SHUTTING_DOWN

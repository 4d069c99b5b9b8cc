"""What tasks used is kept at hand, stored now and then, and read again after a restart."""

from __future__ import annotations

from dicode_mcp.accesses import MOST_AT_HAND, STORE_EVERY_S, AccessBook
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.accesses import Access, SeenRun
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running


def run(number: int) -> SeenRun:
    return SeenRun(f"r{number}", number, True, True, frozenset({Access("env", "A", True)}))


async def test_runs_are_stored_after_a_while_and_read_by_the_next_server() -> None:
    store, clock = MemoryStore(), FakeClock()
    book = AccessBook(store, clock)
    async with running(book.run()):
        await book.note("t", run(1))
        await clock.asleep()
        assert await store.accesses("t") is None
        clock.advance(STORE_EVERY_S)
        await clock.asleep()
        assert await store.accesses("t") is not None
    other = AccessBook(store, clock)
    await other.note("t", run(2))
    assert [each.id for each in (await other.of("t")).runs] == ["r1", "r2"]


async def test_the_last_runs_are_stored_at_the_end() -> None:
    store, clock = MemoryStore(), FakeClock()
    book = AccessBook(store, clock)
    async with running(book.run()):
        await clock.asleep()
        await book.note("t", run(1))
    assert await store.accesses("t") is not None


async def test_a_store_in_trouble_is_tried_again() -> None:
    store, clock = MemoryStore(), FakeClock()
    book = AccessBook(store, clock)
    await book.note("t", run(1))
    store.failure = DicodeError(Code.STORAGE_FULL, "full")
    await book.flush()
    store.failure = None
    assert await store.accesses("t") is None
    await book.flush()
    assert await store.accesses("t") is not None


async def test_a_record_that_cannot_be_read_is_begun_anew() -> None:
    store = MemoryStore()
    for text in ("{", "[]", '{"accesses": [], "runs": [[1]]}'):
        await store.put_accesses({"t": text})
        assert (await AccessBook(store, FakeClock()).of("t")).runs == ()


async def test_many_tasks_do_not_fill_the_memory() -> None:
    store = MemoryStore()
    book = AccessBook(store, FakeClock())
    for number in range(MOST_AT_HAND + 50):
        await book.note(f"t{number}", run(number))
    await book.flush()
    assert len(book._seen) <= MOST_AT_HAND  # pyright: ignore[reportPrivateUsage]
    assert (await book.of("t0")).runs[0].id == "r0"

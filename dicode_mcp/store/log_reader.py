"""A run's log as one sequence: what is on disk and what is still in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from sqlalchemy import Connection

from dicode_mcp.protocols import LogPage, LogQuery
from dicode_mcp.runs.logs import LogLine
from dicode_mcp.store import log_pages
from dicode_mcp.store.rows import chunks


def from_memory(held: Sequence[LogLine], query: LogQuery) -> LogPage | None:
    """Answer from the held end of a log alone; None when lines before it could be wanted."""
    if not held:
        return None
    if query.tail is not None:
        page = log_pages.page_of(held, query)
        return page if len(page.lines) >= query.tail else None
    if held[0].seq <= query.after + 1:
        return log_pages.page_of(held, query)
    return None


def read(connection: Connection, run_id: str, query: LogQuery, held: Sequence[LogLine]) -> LogPage:
    """Answer from the disk and the held end of the log, which was taken before this read.

    So a line that reached the disk in between is seen twice, never missed; its seq tells.
    """
    if query.tail is None:
        return log_pages.first_page(_forward(connection, run_id, query, held), query)
    return log_pages.last_page(_backward(connection, run_id, query, held), query.tail)


def _forward(
    connection: Connection, run_id: str, query: LogQuery, held: Sequence[LogLine]
) -> Iterator[LogLine]:
    last = 0
    for line in chunks.forward(connection, run_id, query.after, query.level or 0):
        last = line.seq
        yield line
    yield from (line for line in log_pages.matching(held, query) if line.seq > last)


def _backward(
    connection: Connection, run_id: str, query: LogQuery, held: Sequence[LogLine]
) -> Iterator[LogLine]:
    before = held[0].seq if held else None
    disk = chunks.backward(connection, run_id, before, query.after, query.level or 0)
    return chain(log_pages.matching(reversed(held), query), disk)

"""Which lines a log query shows, given lines in order; the same rule for every store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from dicode_mcp.protocols import LogPage, LogQuery
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.store.codec import page_size

MAX_LINES = 10_000


def matching(lines: Iterable[LogLine], query: LogQuery) -> Iterator[LogLine]:
    """Give the lines that a query's ``after`` and ``level`` let through."""
    level = query.level or 0
    return (line for line in lines if line.seq > query.after and line.level >= level)


def trimmed(first_seq: int, last_seq: int, ts_ms: int) -> LogLine:
    """Give the line that stands in the place of those that made room for newer ones."""
    number = last_seq - first_seq + 1
    text = (
        f"[dicode] {number:,} log lines were left out here: the log is full and keeps its first "
        "and its newest lines"
    )
    return LogLine(last_seq, ts_ms, Level.WARN, text)


def first_page(lines: Iterable[LogLine], query: LogQuery) -> LogPage:
    """Give a page from the start of matching lines; takes one line more than it shows."""
    limit = page_size(query.limit, MAX_LINES)
    found = list(islice(lines, limit + 1))
    if len(found) <= limit:
        return LogPage(tuple(found))
    return LogPage(tuple(found[:limit]), next_after=found[limit - 1].seq)


def last_page(lines_backward: Iterable[LogLine], tail: int) -> LogPage:
    """Give the last ``tail`` of matching lines that come last first."""
    found = deque[LogLine]()
    found.extendleft(islice(lines_backward, min(max(tail, 0), MAX_LINES)))
    return LogPage(tuple(found))


def page_of(lines: Sequence[LogLine], query: LogQuery) -> LogPage:
    """Answer a query from all lines of a run, in order."""
    if query.tail is None:
        return first_page(matching(lines, query), query)
    return last_page(matching(reversed(lines), query), query.tail)

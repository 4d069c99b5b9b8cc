"""Log lines on disk: compressed chunks of a run's lines, in the order of their seq."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.store import log_pages
from dicode_mcp.store.tables import log_chunks

CHUNK_LINES = 1_000
CHUNK_BYTES = 1024 * 1024

_RUN = log_chunks.c.run_id == bindparam("run")
_INSERT = insert(log_chunks)
_DELETE_ONE = delete(log_chunks).where(_RUN, log_chunks.c.last_seq == bindparam("last"))
_NEXT = (
    select(log_chunks.c.last_seq, log_chunks.c.body)
    .where(
        _RUN,
        log_chunks.c.last_seq > bindparam("seq"),
        log_chunks.c.max_level >= bindparam("level"),
    )
    .order_by(log_chunks.c.last_seq)
    .limit(1)
)
_BEFORE = (
    select(log_chunks.c.first_seq, log_chunks.c.body)
    .where(
        _RUN,
        log_chunks.c.first_seq < bindparam("seq"),
        log_chunks.c.last_seq < bindparam("last"),
        log_chunks.c.last_seq > bindparam("after"),
        log_chunks.c.max_level >= bindparam("level"),
    )
    .order_by(log_chunks.c.last_seq.desc())
    .limit(1)
)
_NO_SEQ = 2**62
_BETWEEN = (
    _RUN,
    log_chunks.c.first_seq > bindparam("after"),
    log_chunks.c.last_seq < bindparam("before"),
)
_FIRST_BETWEEN = select(func.min(log_chunks.c.first_seq)).where(*_BETWEEN)
_LAST_BETWEEN = (
    select(log_chunks.c.body).where(*_BETWEEN).order_by(log_chunks.c.last_seq.desc()).limit(1)
)
_DELETE_BETWEEN = delete(log_chunks).where(*_BETWEEN)


def split(lines: Sequence[LogLine]) -> list[list[LogLine]]:
    """Cut lines into chunks of at most ``CHUNK_LINES`` lines and about ``CHUNK_BYTES``."""
    chunks: list[list[LogLine]] = []
    size = 0
    for line in lines:
        size += len(line.message)
        if not chunks or len(chunks[-1]) >= CHUNK_LINES or size > CHUNK_BYTES:
            chunks.append([])
            size = len(line.message)
        chunks[-1].append(line)
    return chunks


def write(connection: Connection, run_id: str, lines: Sequence[LogLine], open_seq: int) -> None:
    """Write lines; the chunk that ends at ``open_seq`` (0: none) holds some of them and goes."""
    if open_seq:
        connection.execute(_DELETE_ONE, {"run": run_id, "last": open_seq})
    rows = [_row(run_id, chunk) for chunk in split(lines)]
    if rows:
        connection.execute(_INSERT, rows)


def trim(connection: Connection, run_id: str, after: int, before: int) -> None:
    """Put one line in the place of the chunks whose lines all lie between two seqs.

    Its chunk keeps the first seq of what it stands for, so that a later trim counts that too.
    """
    place = {"run": run_id, "after": after, "before": before}
    body = connection.execute(_LAST_BETWEEN, place).scalar()
    if body is None:
        return
    first_seq: int = connection.execute(_FIRST_BETWEEN, place).scalar_one()
    last = unpack(body)[-1]
    mark = log_pages.trimmed(first_seq, last.seq, last.ts_ms)
    connection.execute(_DELETE_BETWEEN, place)
    connection.execute(_INSERT, [_row(run_id, [mark]) | {"first_seq": first_seq}])


def _row(run_id: str, lines: Sequence[LogLine]) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "first_seq": lines[0].seq,
        "last_seq": lines[-1].seq,
        "lines": len(lines),
        "max_level": max(line.level for line in lines),
        "body": pack(lines),
    }


def pack(lines: Sequence[LogLine]) -> bytes:
    """Compress lines: columns, with seqs and times as differences, since those repeat."""
    columns = [
        _differences([line.seq for line in lines]),
        _differences([line.ts_ms for line in lines]),
        [int(line.level) for line in lines],
        [line.message for line in lines],
    ]
    return zlib.compress(json.dumps(columns, separators=(",", ":")).encode("ascii"), 1)


def unpack(body: bytes) -> list[LogLine]:
    """Read what ``pack`` wrote."""
    columns: tuple[list[int], list[int], list[int], list[str]] = json.loads(zlib.decompress(body))
    seqs, times, levels, messages = columns
    lines = zip(accumulate(seqs), accumulate(times), levels, messages, strict=True)
    return [LogLine(seq, ts, Level(level), message) for seq, ts, level, message in lines]


def _differences(values: Sequence[int]) -> list[int]:
    return [values[0], *(b - a for a, b in pairwise(values))]


def forward(connection: Connection, run_id: str, after: int, level: int) -> Iterator[LogLine]:
    """Give the lines with a greater seq and at least a level, reading chunk by chunk."""
    seq = after
    while True:
        row = connection.execute(_NEXT, {"run": run_id, "seq": seq, "level": level}).first()
        if row is None:
            return
        seq = row[0]
        for line in unpack(row[1]):
            if line.seq > after and line.level >= level:
                yield line


def backward(
    connection: Connection, run_id: str, before: int | None, after: int, level: int
) -> Iterator[LogLine]:
    """Give the lines between two seqs and of at least a level, last first."""
    limit = _NO_SEQ if before is None else before
    place = {"run": run_id, "seq": limit, "last": _NO_SEQ, "after": after, "level": level}
    while (row := connection.execute(_BEFORE, place).first()) is not None:
        place["last"] = row[0]
        for line in reversed(unpack(row[1])):
            if after < line.seq < limit and line.level >= level:
                yield line


def remove(connection: Connection, run_ids: Iterable[str]) -> None:
    """Delete the lines of runs."""
    connection.execute(delete(log_chunks).where(log_chunks.c.run_id.in_(list(run_ids))))

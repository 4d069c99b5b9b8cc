"""Log lines between the runs that write them and the disk: taken at once, written in groups.

Belongs to the event loop alone. A line is readable from here until it is on disk; what the disk
will not take is dropped, counted, and the count put in its place. It knows no table: it is given a
function that writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.store.faults import store_closed
from dicode_mcp.store.rows.chunks import CHUNK_BYTES, CHUNK_LINES

FLUSH_S = 0.5
RETRY_S = 5.0
"""How long a count of dropped lines waits for the disk while its run writes nothing."""
OPEN_LINES = 64
OPEN_BYTES = 64 * 1024
"""A run's last chunk is written again with the next lines while it is smaller than this."""
HELD_BYTES = 32 * 1024 * 1024
"""Writers of lines wait while this much is not on disk."""
_LINE_OVERHEAD = 100
_MAX_CLEAN_TAILS = 512


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines of one run to write. They include those of the chunk that ends at ``open_seq``."""

    lines: tuple[LogLine, ...]
    open_seq: int


WriteLines = Callable[[Mapping[str, Batch]], "asyncio.Future[None]"]


@dataclass(slots=True, eq=False)
class _Gap:
    """Lines that were dropped; shown as one line with the seq of the last of them."""

    lines: int
    seq: int
    ts_ms: int
    why: str

    def line(self) -> LogLine:
        text = f"[{self.lines:,} log lines were not kept: {self.why}]"
        return LogLine(self.seq, self.ts_ms, Level.WARN, text)


@dataclass(slots=True, eq=False)
class _Tail:
    """The end of one run's log."""

    written: tuple[LogLine, ...] = ()
    """On disk already, in a chunk that still has room."""
    moving: tuple[LogLine, ...] = ()
    """Being written."""
    moving_gap: _Gap | None = None
    """The gap whose line is the first of ``moving``."""
    gap: _Gap | None = None
    fresh: list[LogLine] = field(default_factory=list[LogLine])
    fresh_bytes: int = 0
    moving_bytes: int = 0
    flight: asyncio.Future[None] | None = None

    @property
    def clean(self) -> bool:
        return not (self.fresh or self.moving or self.gap)

    def unwritten(self) -> tuple[LogLine, ...]:
        gap = () if self.gap is None else (self.gap.line(),)
        return (*gap, *self.fresh)

    def lines(self) -> tuple[LogLine, ...]:
        return (*self.written, *self.moving, *self.unwritten())


class LogBook:
    """Takes lines; ``write`` puts a group of batches on disk in one transaction."""

    def __init__(self, write: WriteLines) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._tails: dict[str, _Tail] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._held = 0
        self._drained = asyncio.Event()
        self._closed = False
        self.dropped_lines = 0
        """Lines dropped since the start, all runs together."""

    async def append(self, run_id: str, lines: Sequence[LogLine]) -> None:
        """Take lines of a run, in order; waits while too much is not on disk yet."""
        if self._closed:
            raise store_closed()
        if not lines:
            return
        while self._held > HELD_BYTES:
            self._drained.clear()
            self._flush(self._tails)
            await self._drained.wait()
        tail = self._tails.setdefault(run_id, _Tail())
        size = sum(len(line.message) for line in lines) + _LINE_OVERHEAD * len(lines)
        tail.fresh.extend(lines)
        tail.fresh_bytes += size
        self._held += size
        if len(tail.fresh) >= CHUNK_LINES or tail.fresh_bytes >= CHUNK_BYTES:
            self._flush([run_id])
        else:
            self._flush_within(FLUSH_S)

    def held(self, run_id: str) -> tuple[LogLine, ...]:
        """Give the lines of a run that are in memory, in order: always the end of its log."""
        tail = self._tails.get(run_id)
        return () if tail is None else tail.lines()

    async def flush(self, run_id: str) -> None:
        """Return when the lines of a run are on disk, or dropped because they cannot be."""
        while (tail := self._tails.get(run_id)) is not None:
            if tail.flight is None:
                if not tail.fresh:
                    break
                self._flush([run_id])
            if tail.flight is not None:
                # Not a plain await: a waiter that is cancelled must not cancel the write.
                await asyncio.wait([tail.flight])
        if tail is not None and tail.clean:
            del self._tails[run_id]

    async def close(self) -> None:
        """Put everything on disk; takes no more lines."""
        self._closed = True
        self._flush(self._tails)
        for run_id in list(self._tails):
            await self.flush(run_id)
        if self._timer is not None:
            self._timer.cancel()

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop what is in memory of runs that are being deleted."""
        for run_id in run_ids:
            tail = self._tails.pop(run_id, None)
            if tail is not None:
                self._held -= tail.fresh_bytes

    # ── Flushing ──

    def _flush_within(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._flush(self._tails)
        self._drop_clean_tails()

    def _flush(self, run_ids: Iterable[str]) -> None:
        """Start writing what is fresh, except for runs whose last write is still under way."""
        batches: dict[str, Batch] = {}
        for run_id in run_ids:
            tail = self._tails[run_id]
            if tail.flight is None and not tail.clean:
                batches[run_id] = _depart(tail)
        if not batches:
            return
        tails = [self._tails[run_id] for run_id in batches]
        flight = self._write(batches)
        for tail in tails:
            tail.flight = flight
        flight.add_done_callback(lambda done: self._landed(tails, done))

    def _landed(self, tails: Sequence[_Tail], flight: asyncio.Future[None]) -> None:
        error = None if flight.cancelled() else flight.exception()
        for tail in tails:
            self._held -= tail.moving_bytes
            if error is None:
                _arrive(tail)
            else:
                self.dropped_lines += _drop(tail, error)
            tail.flight = None
            if len(tail.fresh) >= CHUNK_LINES:
                self._flush_within(0)
            elif tail.fresh:
                self._flush_within(FLUSH_S)
            elif tail.gap is not None:
                self._flush_within(RETRY_S)
        self._drained.set()

    def _drop_clean_tails(self) -> None:
        """Forget runs that have nothing to write, when there are many: they write no more."""
        for run_id in list(self._tails)[: max(0, len(self._tails) - _MAX_CLEAN_TAILS)]:
            if self._tails[run_id].clean:
                del self._tails[run_id]


def _depart(tail: _Tail) -> Batch:
    """Move what is fresh to ``moving``; gives what has to be written."""
    tail.moving = tail.unwritten()
    tail.moving_gap, tail.gap = tail.gap, None
    tail.fresh = []
    tail.moving_bytes, tail.fresh_bytes = tail.fresh_bytes, 0
    open_seq = tail.written[-1].seq if tail.written else 0
    return Batch((*tail.written, *tail.moving), open_seq)


def _arrive(tail: _Tail) -> None:
    """Note that ``moving`` is on disk."""
    together = (*tail.written, *tail.moving)
    size = sum(len(line.message) for line in together[:OPEN_LINES])
    tail.written = together if len(together) < OPEN_LINES and size < OPEN_BYTES else ()
    tail.moving, tail.moving_gap, tail.moving_bytes = (), None, 0


def _drop(tail: _Tail, error: BaseException) -> int:
    """Replace ``moving`` by a gap; gives how many lines were dropped now."""
    before = 0 if tail.moving_gap is None else tail.moving_gap.lines
    lines = len(tail.moving) - (1 if tail.moving_gap else 0)
    last = tail.moving[-1]
    tail.gap = _Gap(before + lines, last.seq, last.ts_ms, _reason(error))
    tail.moving, tail.moving_gap, tail.moving_bytes = (), None, 0
    return lines


def _reason(error: BaseException) -> str:
    if isinstance(error, DicodeError) and error.code is Code.STORAGE_FULL:
        return "the disk was full"
    return "the log store could not be written"

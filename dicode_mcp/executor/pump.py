"""Reading what a process writes: fairly to the event loop, in bounded memory, never blocking it.

Knows pipes and lines; what a line means is the sink's affair.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping

from dicode_mcp.clock import Clock
from dicode_mcp.executor import tree
from dicode_mcp.executor.lines import LineSplitter, readable, split_marked
from dicode_mcp.executor.tail import Piece, Tail
from dicode_mcp.protocols import LineSink, RawLine
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.runs.logs import Stream
from dicode_mcp.runs.redaction import NOTHING, Redactor

_CHUNK = 64 * 1024
_SLICE = 200
"""Lines handed on before the loop gets its turn."""
_DRAIN = 1024 * 1024
_SHOW_S = 2.0
"""How often a full log shows the newest lines."""

_log = logging.getLogger(__name__)


class _Pipe:
    """One stream of the process."""

    def __init__(self, fd: int, stream: Stream, limits: LogLimits, hide: Redactor) -> None:
        self.fd = fd
        self.stream: Stream = stream
        self.shown = hide.stream()
        self.splitter = LineSplitter()
        self.tail = Tail(limits.newest_lines, limits.newest_bytes)
        self.backlog: list[bytes] = []
        self.ended = False
        self.watched = False


class OutputPump:
    """Moves lines from a process's pipes to a sink until both have ended.

    Beyond the limits it reads on, so that the process is never held up, holds the newest lines of
    each stream, and hands these on every two seconds and at the end, after a line that says how
    much is missing. So a log that is full still goes on, and still shows how the run ended.
    """

    def __init__(
        self,
        fds: Mapping[Stream, int],
        sink: LineSink,
        clock: Clock,
        limits: LogLimits,
        hide: Redactor = NOTHING,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipes = [_Pipe(fd, stream, limits, hide) for stream, fd in fds.items()]
        self.names = frozenset(tree.pipe_name(fd) for fd in fds.values())
        """The pipes as ``/proc`` names them."""
        self._sink = sink
        self._clock = clock
        self._bytes_left = limits.max_bytes
        self._lines_left = limits.max_lines
        self._full = False
        self._deaf = False
        self._deaf_bytes = 0
        self._place = 0
        self._told = 0
        self._showing: deque[tuple[Stream, int, bytes]] = deque()
        self._show_timer: asyncio.TimerHandle | None = None
        self._shown_at = 0.0
        self._waste: bytearray | None = None
        self._finishing = False

    @property
    def dropped_bytes(self) -> int:
        """Output that was read and not kept."""
        cut = sum(pipe.splitter.dropped for pipe in self._pipes)
        return cut + self._let_go + self._deaf_bytes

    @property
    def _let_go(self) -> int:
        return sum(pipe.tail.dropped for pipe in self._pipes)

    def start(self) -> None:
        """Begin to read whenever there is something."""
        for pipe in self._pipes:
            os.set_blocking(pipe.fd, False)
            self._watch(pipe)

    async def finish(self) -> None:
        """Read what is left once all writers are dead, and close.

        A pipe that some stranger still holds open is given up when it is empty.
        """
        self._finishing = True
        if self._show_timer is not None:
            self._show_timer.cancel()
        for pipe in self._pipes:
            self._unwatch(pipe)
            while not pipe.ended:
                if pipe.backlog:
                    self._hand_on(pipe)
                elif not self._read(pipe):
                    self._end(pipe)
                await asyncio.sleep(0)
        while self._showing or any(pipe.tail for pipe in self._pipes):
            self._show()
            await asyncio.sleep(0)
        self._show_unfinished()
        self.close()

    def close(self) -> None:
        """Stop reading and let the pipes go."""
        self._finishing = True
        if self._show_timer is not None:
            self._show_timer.cancel()
        for pipe in self._pipes:
            self._unwatch(pipe)
            if pipe.fd >= 0:
                os.close(pipe.fd)
                pipe.fd = -1

    def _watch(self, pipe: _Pipe) -> None:
        self._loop.add_reader(pipe.fd, self._readable, pipe)
        pipe.watched = True

    def _unwatch(self, pipe: _Pipe) -> None:
        if pipe.watched:
            self._loop.remove_reader(pipe.fd)
            pipe.watched = False

    def _readable(self, pipe: _Pipe) -> None:
        self._read(pipe)
        if pipe.ended:
            self._unwatch(pipe)
        elif pipe.backlog:
            self._unwatch(pipe)
            self._loop.call_soon(self._resume, pipe)

    def _resume(self, pipe: _Pipe) -> None:
        if self._finishing or pipe.fd < 0:
            return
        self._hand_on(pipe)
        if pipe.backlog:
            self._loop.call_soon(self._resume, pipe)
        elif not pipe.ended:
            self._watch(pipe)

    def _read(self, pipe: _Pipe) -> bool:
        """Read once; tells whether there was anything (the end counts)."""
        try:
            if self._full:
                return self._skim(pipe)
            data = os.read(pipe.fd, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        if not data:
            self._end(pipe)
            return True
        pipe.backlog = pipe.splitter.feed(pipe.shown.feed(data))
        self._hand_on(pipe)
        return True

    def _skim(self, pipe: _Pipe) -> bool:
        """Read a large piece and hold its newest lines."""
        if self._waste is None:
            self._waste = bytearray(_DRAIN)
            self._widen()
        size = os.readv(pipe.fd, [self._waste])
        if size == 0:
            self._end(pipe)
        elif self._deaf:
            self._deaf_bytes += size
        else:
            self._place += 1
            data = memoryview(self._waste)[:size]
            pipe.tail.read(self._place, self._clock.now_ms(), data)
            self._show_later()
        return True

    def _widen(self) -> None:
        """Ask for larger pipes: fewer turns of the loop for the same flood."""
        if sys.platform != "linux":
            return
        for pipe in self._pipes:
            try:
                fcntl.fcntl(pipe.fd, fcntl.F_SETPIPE_SZ, _DRAIN)
            except OSError:
                return

    def _end(self, pipe: _Pipe) -> None:
        pipe.ended = True
        if not self._full:
            pipe.backlog.extend(pipe.splitter.feed(pipe.shown.flush()))
            pipe.backlog.extend(pipe.splitter.close())
        while pipe.backlog:
            self._hand_on(pipe)

    def _hand_on(self, pipe: _Pipe) -> None:
        """Give the sink the next slice of the backlog."""
        ts_ms = self._clock.now_ms()
        out: list[RawLine] = []
        beyond: list[bytes] = []
        for line in pipe.backlog[:_SLICE]:
            for part in split_marked(line):
                if self._fits(len(part) + 1):
                    out.append(RawLine(pipe.stream, readable(part), ts_ms))
                else:
                    beyond.append(part)
        del pipe.backlog[:_SLICE]
        self._give(out)
        if beyond:
            self._place += 1
            pipe.tail.lines(self._place, ts_ms, beyond)
            self._show_later()

    def _fits(self, size: int) -> bool:
        if self._full:
            return False
        if size > self._bytes_left or self._lines_left == 0:
            self._full = True
            self._shown_at = self._loop.time()
            return False
        self._bytes_left -= size
        self._lines_left -= 1
        return True

    def _give(self, lines: list[RawLine]) -> None:
        if not lines:
            return
        if self._deaf:
            self._deaf_bytes += sum(len(line.text.encode()) + 1 for line in lines)
            return
        try:
            self._sink(lines)
        except Exception:
            # A sink that fails must not leave the process blocked on a full pipe.
            _log.exception("the sink of a run's output failed; its further output is dropped")
            self._full = self._deaf = True

    # ── Once the log is full ──

    def _show_later(self) -> None:
        if self._show_timer is None and not self._finishing:
            due = self._shown_at + _SHOW_S - self._loop.time()
            self._show_timer = self._loop.call_later(max(0.0, due), self._on_show_timer)

    def _on_show_timer(self) -> None:
        """Show a slice; the next one in the loop's next turn, the next lines after a while."""
        self._show()
        if self._showing:
            self._show_timer = self._loop.call_later(0, self._on_show_timer)
            return
        self._show_timer = None
        self._shown_at = self._loop.time()
        if any(pipe.tail for pipe in self._pipes):
            self._show_later()

    def _show(self) -> None:
        """Hand on a slice of the newest lines, after saying what is missing before them."""
        out: list[RawLine] = []
        if not self._showing:
            self._showing.extend(self._newest())
            out.extend(self._mark())
        for _ in range(min(_SLICE, len(self._showing))):
            stream, ts_ms, line = self._showing.popleft()
            out.append(RawLine(stream, readable(line), ts_ms))
        self._give(out)

    def _show_unfinished(self) -> None:
        """Hand on last lines without an end, after all that came before them."""
        for pipe in self._pipes:
            last = [*pipe.splitter.feed(pipe.shown.flush()), *pipe.splitter.close()]
            parts = [part for line in last for part in split_marked(line)]
            now = self._clock.now_ms()
            self._give([RawLine(pipe.stream, readable(part), now) for part in parts])

    def _newest(self) -> Iterator[tuple[Stream, int, bytes]]:
        taken: list[tuple[Piece, Stream, bytes]] = [
            (piece, pipe.stream, part)
            for pipe in self._pipes
            for piece, line in pipe.tail.take(pipe.splitter, pipe.shown)
            for part in split_marked(line)
        ]
        taken.sort(key=lambda found: found[0].place)
        return ((stream, piece.ts_ms, part) for piece, stream, part in taken)

    def _mark(self) -> list[RawLine]:
        """Say how much is missing before the lines that follow, if anything is."""
        missing = self._let_go - self._told
        self._told += missing
        if not missing:
            return []
        text = f"[dicode] the log is full: {missing:,} bytes of output were left out here"
        return [RawLine("stderr", text, self._clock.now_ms())]

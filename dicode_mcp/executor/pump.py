"""Reading what a process writes: fairly to the event loop, in bounded memory, never blocking it.

Knows pipes and lines; what a line means is the sink's affair.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from dicode_mcp.clock import Clock
from dicode_mcp.executor.lines import LineSplitter, readable, split_marked
from dicode_mcp.protocols import LineSink, RawLine
from dicode_mcp.runs.logs import Stream

_CHUNK = 64 * 1024
_SLICE = 200
"""Lines handed on before the loop gets its turn."""
_DRAIN = 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """How much of one run's output is kept. Bytes count with their line ends."""

    max_bytes: int = 10 * 1024 * 1024
    max_lines: int = 100_000


class _Pipe:
    """One stream of the process."""

    def __init__(self, fd: int, stream: Stream) -> None:
        self.fd = fd
        self.stream: Stream = stream
        self.splitter = LineSplitter()
        self.backlog: list[bytes] = []
        self.ended = False
        self.watched = False


class OutputPump:
    """Moves lines from a process's pipes to a sink until both have ended.

    Beyond the limits it reads on and throws away, so that the process is never held up.
    """

    def __init__(
        self, fds: Mapping[Stream, int], sink: LineSink, clock: Clock, limits: OutputLimits
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipes = [_Pipe(fd, stream) for stream, fd in fds.items()]
        self._sink = sink
        self._clock = clock
        self._bytes_left = limits.max_bytes
        self._lines_left = limits.max_lines
        self._dropped = 0
        self._full = False
        self._waste: bytearray | None = None
        self._finishing = False

    @property
    def dropped_bytes(self) -> int:
        """Output that was read and not kept."""
        return self._dropped + sum(pipe.splitter.dropped for pipe in self._pipes)

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
        for pipe in self._pipes:
            self._unwatch(pipe)
            while not pipe.ended:
                if pipe.backlog:
                    self._hand_on(pipe)
                elif not self._read(pipe):
                    self._end(pipe)
                await asyncio.sleep(0)
        self.close()

    def close(self) -> None:
        """Stop reading and let the pipes go."""
        self._finishing = True
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
                return self._drain(pipe)
            data = os.read(pipe.fd, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        if not data:
            self._end(pipe)
            return True
        pipe.backlog = pipe.splitter.feed(data)
        self._hand_on(pipe)
        return True

    def _drain(self, pipe: _Pipe) -> bool:
        if self._waste is None:
            self._waste = bytearray(_DRAIN)
            self._widen()
        size = os.readv(pipe.fd, [self._waste])
        self._dropped += size
        if size == 0:
            self._end(pipe)
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
        pipe.backlog.extend(pipe.splitter.close())
        while pipe.backlog:
            self._hand_on(pipe)

    def _hand_on(self, pipe: _Pipe) -> None:
        """Give the sink the next slice of the backlog."""
        ts_ms = self._clock.now_ms()
        out: list[RawLine] = []
        for line in pipe.backlog[:_SLICE]:
            for part in split_marked(line):
                if self._account(len(part) + 1):
                    out.append(RawLine(pipe.stream, readable(part), ts_ms))
        del pipe.backlog[:_SLICE]
        if self._full:
            self._dropped += sum(len(line) + 1 for line in pipe.backlog)
            pipe.backlog.clear()
        if out:
            self._give(out)

    def _account(self, size: int) -> bool:
        if self._full or size > self._bytes_left or self._lines_left == 0:
            self._full = True
            self._dropped += size
            return False
        self._bytes_left -= size
        self._lines_left -= 1
        return True

    def _give(self, lines: list[RawLine]) -> None:
        try:
            self._sink(lines)
        except Exception:
            # A sink that fails must not leave the process blocked on a full pipe.
            _log.exception("the sink of a run's output failed; its further output is dropped")
            self._full = True

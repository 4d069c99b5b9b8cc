"""How much of a run's log is kept, and which lines make room for newer ones.

Pure: it counts lines and knows neither the process that writes them nor the store that keeps them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from dicode_mcp.runs.logs import LogLine

_HEAD_LINES = 1_000
_NEWEST_LINES = 1_000
_NEWEST_BYTES = 256 * 1024
_BLOCK_LINES = 250


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much of one run's log is kept whole. Bytes count with their line ends.

    What a run writes beyond it comes in parts of at most ``newest``, and older lines make room.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_lines: int = 100_000

    @property
    def newest_lines(self) -> int:
        """How many of the newest lines of a stream are held once the log is full."""
        return max(1, min(_NEWEST_LINES, self.max_lines // 4))

    @property
    def newest_bytes(self) -> int:
        """How many of the newest bytes of a stream are held once the log is full."""
        return max(1, min(_NEWEST_BYTES, self.max_bytes // 4))


@dataclass(frozen=True, slots=True)
class Room:
    """Lines to give up: those with a seq between the two, which both stay."""

    after: int
    before: int


@dataclass(slots=True)
class _Block:
    last_seq: int = 0
    lines: int = 0
    size: int = 0

    def add(self, line: LogLine) -> None:
        self.last_seq = line.seq
        self.lines += 1
        self.size += len(line.message) + 1


class LogRoom:
    """Counts one run's stored lines; the first of them, up to 1,000, are never given up.

    A tenth above the limits is allowed before room is made: so it is made seldom, and the server's
    own lines never cost a run that stayed within its limits any of its own.
    """

    def __init__(self, limits: LogLimits) -> None:
        self._limits = limits
        self._head = _Block()
        self._blocks: deque[_Block] = deque()
        self._lines = 0
        self._size = 0

    def take(self, lines: Iterable[LogLine]) -> Room | None:
        """Count stored lines, ``seq`` rising; give those that must make room, if any must."""
        for line in lines:
            self._count(line)
        return self._make_room() if self._above(1.1) else None

    def _count(self, line: LogLine) -> None:
        if not self._blocks and self._fits_head(line):
            block = self._head
        else:
            if not self._blocks or self._blocks[-1].lines >= _BLOCK_LINES:
                self._blocks.append(_Block())
            block = self._blocks[-1]
        block.add(line)
        self._lines += 1
        self._size += len(line.message) + 1

    def _fits_head(self, line: LogLine) -> bool:
        most_lines = min(_HEAD_LINES, self._limits.max_lines // 4)
        most_bytes = self._limits.max_bytes // 4
        return self._head.lines < most_lines and self._head.size + len(line.message) < most_bytes

    def _make_room(self) -> Room | None:
        before = 0
        while self._above(1.0) and len(self._blocks) > 1:
            gone = self._blocks.popleft()
            self._lines -= gone.lines
            self._size -= gone.size
            before = gone.last_seq + 1
        return Room(self._head.last_seq, before) if before else None

    def _above(self, factor: float) -> bool:
        limits = self._limits
        return self._lines > limits.max_lines * factor or self._size > limits.max_bytes * factor

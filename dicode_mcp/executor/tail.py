"""The end of one stream's output, in bounded memory: what a full log shows instead of silence.

Pure. It holds pieces as they were read, since most of a flood is let go and need not be cut into
lines before; it counts the bytes it lets go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dicode_mcp.executor.lines import LineSplitter
from dicode_mcp.runs import redaction

_FEED = 64 * 1024
_SMALL = 4 * 1024
_MANY = 2_000


@dataclass(frozen=True, slots=True)
class Piece:
    """Output read at once. ``place`` counts the pieces of all streams of a process.

    ``raw`` is as read; else it is complete lines, from before the stream's unfinished one.
    """

    place: int
    ts_ms: int
    data: bytes
    raw: bool = True


class Tail:
    """Holds at least the newest ``max_bytes`` and at most twice as many."""

    def __init__(self, max_lines: int, max_bytes: int) -> None:
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._pieces: deque[Piece] = deque()
        self._size = 0
        self._torn = False
        self.dropped = 0
        """Bytes let go."""

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def read(self, place: int, ts_ms: int, data: memoryview) -> None:
        """Take what was read."""
        end = bytes(data[-self._max_bytes :])
        if len(end) < len(data):
            self._drop_all()
            self._lose(len(data) - len(end), raw=True)
        self._add(Piece(place, ts_ms, end))

    def lines(self, place: int, ts_ms: int, lines: list[bytes]) -> None:
        """Take lines that were cut already."""
        self._add(Piece(place, ts_ms, b"".join(line + b"\n" for line in lines), raw=False))

    def take(
        self, splitter: LineSplitter, shown: redaction.Stream
    ) -> Iterator[tuple[Piece, bytes]]:
        """Give the newest lines up to both limits, oldest first, each with its piece; empties.

        ``splitter`` holds the stream's unfinished line, before and after; ``shown`` takes out what
        must not be seen of what was only held so far.
        """
        pieces = self._newest()
        if self._torn:
            splitter.restart()
            shown.gap()
            self._torn = False
        for piece in pieces:
            for line in _cut(piece, splitter, shown):
                yield piece, line

    def _add(self, piece: Piece) -> None:
        last = self._pieces[-1] if self._pieces else None
        if last is not None and _together(last, piece, crowded=len(self._pieces) > _MANY):
            self._pieces[-1] = replace(last, data=last.data + piece.data)
        else:
            self._pieces.append(piece)
        self._size += len(piece.data)
        while self._size - len(self._pieces[0].data) >= self._max_bytes:
            self._drop(self._pieces.popleft())

    def _newest(self) -> deque[Piece]:
        kept: deque[Piece] = deque()
        lines, size = self._max_lines, self._max_bytes
        while self._pieces and lines > 0 and size > 0:
            piece = self._pieces.pop()
            self._size -= len(piece.data)
            end = _end(piece.data, lines, size)
            if len(end) < len(piece.data):
                self._drop_all()
                self._lose(len(piece.data) - len(end), raw=piece.raw)
            lines -= end.count(b"\n")
            size -= len(end)
            kept.appendleft(replace(piece, data=end))
        self._drop_all()
        if self._torn and kept and kept[0].raw:
            kept[0] = self._mended(kept[0])
        return kept

    def _mended(self, piece: Piece) -> Piece:
        """Let a first line go that has lost its start, if it is not all there is."""
        first, _, rest = piece.data.partition(b"\n")
        if not rest:
            return piece
        self.dropped += len(first) + 1
        return replace(piece, data=rest)

    def _drop_all(self) -> None:
        while self._pieces:
            self._drop(self._pieces.popleft())

    def _drop(self, piece: Piece) -> None:
        self._size -= len(piece.data)
        self._lose(len(piece.data), raw=piece.raw)

    def _lose(self, size: int, *, raw: bool) -> None:
        self.dropped += size
        self._torn = self._torn or raw


def _together(last: Piece, piece: Piece, *, crowded: bool) -> bool:
    """Whether small pieces may become one: they follow each other, or there are too many."""
    small = len(last.data) < _SMALL and last.raw and piece.raw
    return small and (crowded or last.place == piece.place - 1)


def _end(data: bytes, lines: int, size: int) -> bytes:
    """Give the end of a piece, with at most so many line ends and bytes."""
    data = data[-size:]
    if data.count(b"\n") <= lines:
        return data
    head = data.rsplit(b"\n", lines + 1)[0]
    return data[len(head) + 1 :]


def _cut(piece: Piece, splitter: LineSplitter, shown: redaction.Stream) -> Iterator[bytes]:
    if not piece.raw:
        yield from piece.data.split(b"\n")[:-1]
        return
    for start in range(0, len(piece.data), _FEED):
        yield from splitter.feed(shown.feed(piece.data[start : start + _FEED]))

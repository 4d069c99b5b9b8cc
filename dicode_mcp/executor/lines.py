"""Cutting a byte stream into lines that are safe to store and to show.

Pure: knows nothing of pipes or processes. A line is cut at 64 KiB, what a carriage return
overwrote is gone (a progress bar keeps its last state), and control characters are made visible.
"""

from __future__ import annotations

import re

from dicode_mcp.runs.logs import MARK, MAX_LINE_BYTES, TRUNCATED

_MARKED = MARK.encode() + b'{"l":'
_CUT = TRUNCATED.encode()
_ROOM = MAX_LINE_BYTES - len(_CUT)
# Colours stay (surfaces draw them); any other escape sequence could drive a reader's terminal.
_UNSAFE = re.compile("\x1b\\[[0-9;:]{0,32}m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LineSplitter:
    """Collects pieces of one stream. Holds at most one line of 64 KiB."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._overflow = False
        self._returned = False
        self._open = False
        self.dropped = 0
        """Bytes cut off from lines that were too long."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take a piece; give the lines it completes, without their ends."""
        if len(data) > MAX_LINE_BYTES:
            cuts = range(0, len(data), MAX_LINE_BYTES)
            return [line for at in cuts for line in self.feed(data[at : at + MAX_LINE_BYTES])]
        parts = data.split(b"\n")
        last = parts.pop()
        if not parts:
            self._keep(last)
            return []
        self._keep(parts[0])
        lines = [self._end()]
        lines.extend(
            part if b"\r" not in part else part.rstrip(b"\r").rpartition(b"\r")[2]
            for part in parts[1:]
        )
        self._keep(last)
        return lines

    def close(self) -> list[bytes]:
        """Give the last line if the stream ended without a line end."""
        return [self._end()] if self._open else []

    def restart(self) -> None:
        """Let go of a line that is not complete: what follows it is not known."""
        self.dropped += len(self._line)
        self._clear()
        self._returned = self._open = False

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self._open = True
        if self._returned:
            self._clear()
        body = piece.rstrip(b"\r")
        self._returned = len(body) < len(piece)
        overwritten = body.rfind(b"\r") + 1
        if overwritten:
            self._clear()
            body = body[overwritten:]
        room = MAX_LINE_BYTES - len(self._line)
        self._line += body[:room]
        if len(body) > room:
            self._overflow = True
            self.dropped += len(body) - room

    def _clear(self) -> None:
        self._line.clear()
        self._overflow = False

    def _end(self) -> bytes:
        line = bytes(self._line)
        if self._overflow:
            line = cut(line)
        self._clear()
        self._returned = self._open = False
        return line


def cut(line: bytes) -> bytes:
    """Shorten a line so that it fits with the mark that says so, between two characters."""
    end = _ROOM
    while end > 0 and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end] + _CUT


def split_marked(line: bytes) -> list[bytes]:
    """Part a line where the SDK's own line begins in it (text printed without a line end)."""
    parts: list[bytes] = []
    while (at := line.find(_MARKED, 1)) > 0:
        parts.append(line[:at])
        line = line[at:]
    return [*parts, line]


def readable(line: bytes) -> str:
    """Decode a line: bad UTF-8 is replaced, control characters become visible symbols."""
    text = line.decode("utf-8", "replace")
    if text.isprintable():
        return text
    head = ""
    if text.startswith(MARK):
        head, text = MARK, text[1:]
    if _UNSAFE.search(text):
        text = _UNSAFE.sub(_visible, text)
        encoded = text.encode()
        if len(encoded) > MAX_LINE_BYTES:
            text = cut(encoded).decode()
    return head + text


def _visible(match: re.Match[str]) -> str:
    text = match.group()
    if len(text) > 1:
        return text
    code = ord(text)
    if code == 0x7F:
        return "␡"
    return chr(0x2400 + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}"

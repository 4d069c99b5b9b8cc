"""The form of the talk with a task: one JSON object a line, each way.

Server to task: ``{start: {…}}`` once, then ``{id, result}`` or ``{id, error: {code, message,
hint?}}``. Task to server: ``{id, method, args}``, ``{used: [[kind, what], …]}``, and once
``{finish: {return, error, used?}}``, where ``return`` is the value as JSON text. Pure: knows
neither sockets nor what a method does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from dicode_mcp.runs.accesses import Hint, read_hints
from dicode_mcp.runs.model import RunError

MAX_FRAME = 2 * 1024 * 1024 + 64 * 1024
"""Bytes of one line from a task: a return value of 1 MiB with every character escaped fits."""
MAX_RETURN = 1024 * 1024
PROTOCOL = 1
_MAX_TEXT = 40_000
_MAX_ID = 2**53


class ProtocolError(Exception):
    """A task sent something that is not of the protocol; its text says what, without its data."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the task."""

    id: int
    method: str
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finish:
    """The task's own word about its end."""

    return_value: str | None
    error: RunError | None
    used: tuple[Hint, ...] | None = None
    """What it used and has not told yet; None when that was not looked at."""


@dataclass(frozen=True, slots=True)
class Used:
    """What the task says that it used."""

    hints: tuple[Hint, ...]


class FrameBuffer:
    """Bytes of a stream, taken out by line. Holds at most one frame and one read."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._data = bytearray()
        self._scanned = 0
        self._limit = limit

    def add(self, data: bytes) -> None:
        """Take what was read."""
        self._data += data

    def next(self) -> bytes | None:
        """Give the next whole line. Raises ``ProtocolError`` when it is longer than the limit."""
        end = self._data.find(b"\n", self._scanned)
        if end > self._limit or (end < 0 and len(self._data) > self._limit):
            raise ProtocolError(f"a frame is longer than {self._limit:,} bytes")
        if end < 0:
            self._scanned = len(self._data)
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        self._scanned = 0
        return line


def encode(frame: Mapping[str, Any]) -> bytes:
    """Write a frame."""
    text = json.dumps(frame, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def decode(line: bytes) -> Call | Finish | Used:
    """Read a frame of a task. Raises ``ProtocolError``."""
    try:
        raw: Any = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("a frame is not JSON") from None
    if not isinstance(raw, dict):
        raise ProtocolError("a frame is not an object")
    frame = cast("dict[str, Any]", raw)
    if "finish" in frame:
        return _finish(frame["finish"])
    if "used" in frame:
        return Used(tuple(read_hints(frame["used"])))
    number, method, args = frame.get("id"), frame.get("method"), frame.get("args")
    if type(number) is not int or not 0 < number < _MAX_ID:
        raise ProtocolError("a request has no usable id")
    if not isinstance(method, str) or not isinstance(args, dict):
        raise ProtocolError("a request lacks its method or args")
    return Call(number, method, cast("dict[str, Any]", args))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finish(raw: Any) -> Finish:
    if not isinstance(raw, dict):
        raise ProtocolError("a finish frame is not an object")
    body = cast("dict[str, Any]", raw)
    value = body.get("return")
    if value is not None and not isinstance(value, str):
        raise ProtocolError("a finish frame's return is not JSON text")
    used = tuple(read_hints(body["used"])) if "used" in body else None
    return Finish(value, _error(body.get("error")), used)


def _error(raw: Any) -> RunError | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise ProtocolError("a finish frame's error is not an object")
    body = cast("dict[str, Any]", raw)
    line = body.get("line")
    return RunError(
        code=_text(body.get("code")) or "script_error",
        message=_text(body.get("message")) or "the script failed",
        hint=_text(body.get("hint")),
        file=_text(body.get("file")),
        line=line if type(line) is int else None,
        traceback=_text(body.get("traceback")),
    )


def _text(value: Any) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) else None

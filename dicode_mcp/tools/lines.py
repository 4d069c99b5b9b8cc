"""Newline JSON-RPC on asyncio streams, as the stream pair the MCP SDK reads and writes.

No threads. It knows lines and JSON-RPC messages; methods and sessions are the SDK's.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast

import anyio
import mcp_types as t
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 16 * 1024 * 1024
WRITE_STALL_S = 60.0
"""A client that takes no byte for so long while we write is let go."""


class LineChannel:
    """Lines on one connection. Reading waits while the peer does not take what was written."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        write_stall_s: float = WRITE_STALL_S,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._write_stall_s = write_stall_s

    async def read(self) -> bytes | None:
        """Give the next line that is not empty, without its end; None at the end of the stream.

        A line that is too long is answered with an error and is the end of the stream.
        """
        while True:
            try:
                await self.drain()
                line = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                await self._say_too_long()
                return None
            except (asyncio.IncompleteReadError, OSError, anyio.BrokenResourceError):
                return None
            if line := line.strip():
                return line

    async def write(self, line: bytes) -> None:
        """Send one line; raises ``anyio.BrokenResourceError`` when the peer is gone."""
        if self._writer.is_closing():
            raise anyio.BrokenResourceError
        self._writer.write(line + b"\n")
        await self.drain()

    async def drain(self) -> None:
        """Wait until the peer has taken enough; a peer that takes nothing is cut off."""
        try:
            async with asyncio.timeout(self._write_stall_s):
                await self._writer.drain()
        except TimeoutError:
            log.warning("a client did not read its answers and was disconnected")
            self._writer.transport.abort()
            raise anyio.BrokenResourceError from None
        except OSError:
            raise anyio.BrokenResourceError from None

    async def linger(self, seconds: float) -> None:
        """Say that nothing more comes, and take what the peer still sends for a while.

        Closing with unread bytes would make the peer's end an error before it has read our last
        line.
        """
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                while await self._reader.read(65536):
                    pass

    def close(self) -> None:
        """Close; what was written is still sent."""
        self._writer.close()

    async def _say_too_long(self) -> None:
        message = f"a line is longer than {MAX_LINE_BYTES // 2**20} MiB; the connection closes"
        try:
            await self.write(_error_line(t.PARSE_ERROR, message, None))
        except anyio.BrokenResourceError:
            return


class MessageReader:
    """The read half: messages, with what is no message answered here."""

    def __init__(self, channel: LineChannel, first: bytes | None = None) -> None:
        self._channel = channel
        self._first = first

    async def receive(self) -> SessionMessage | Exception:
        """Give the next message; raises ``anyio.EndOfStream`` at the end."""
        while True:
            line, self._first = self._first or await self._channel.read(), None
            if line is None:
                raise anyio.EndOfStream
            try:
                message = t.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValidationError:
                await self._refuse(line)
                continue
            return SessionMessage(message)

    async def _refuse(self, line: bytes) -> None:
        try:
            await self._channel.write(refusal(line))
        except anyio.BrokenResourceError:
            raise anyio.EndOfStream from None

    def __aiter__(self) -> Self:
        """Iterate the messages."""
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        """Give the next message."""
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Do nothing: the channel's owner closes it."""

    async def __aenter__(self) -> Self:
        """Enter; nothing to open."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Leave; nothing to close."""


class MessageWriter:
    """The write half."""

    def __init__(self, channel: LineChannel) -> None:
        self._channel = channel
        self._closed = False

    async def send(self, item: SessionMessage, /) -> None:
        """Send one message."""
        if self._closed:
            raise anyio.ClosedResourceError
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        await self._channel.write(line.encode())

    async def aclose(self) -> None:
        """Refuse further messages; the channel's owner closes it."""
        self._closed = True

    async def __aenter__(self) -> Self:
        """Enter; nothing to open."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Leave and refuse further messages."""
        await self.aclose()


def refusal(line: bytes) -> bytes:
    """Give the answer to a line that is no JSON-RPC message."""
    try:
        parsed: Any = json.loads(line)
    except (ValueError, RecursionError):
        return _error_line(t.PARSE_ERROR, "the line is not JSON", None)
    request_id = cast("dict[str, Any]", parsed).get("id") if isinstance(parsed, dict) else None
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        request_id = None
    message = "the line is not one JSON-RPC 2.0 request, notification or response object"
    return _error_line(t.INVALID_REQUEST, message, request_id)


def _error_line(code: int, message: str, request_id: str | int | None) -> bytes:
    error = {"code": code, "message": message}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode()

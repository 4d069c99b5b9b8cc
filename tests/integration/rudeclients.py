"""Raw connections to each door of a server, and a good client that must not feel the rude ones."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from liveserver import Live

MODERN = "2026-07-28"
DOORS = ("socket", "http", "sse")
ANSWER_S = 30.0
LIMIT = 2**25

_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "rude", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def call(tool: str, number: int = 1, /, version: str = MODERN, **arguments: Any) -> bytes:
    """Give the message that calls a tool without a handshake."""
    meta = {**_META, "io.modelcontextprotocol/protocolVersion": version}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return json.dumps(message).encode()


@dataclass
class Raw:
    """One connection. Over SSE messages go to the path ``session``, answers come on ``stream``."""

    door: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    session: str = ""
    stream: Raw | None = None

    @property
    def ear(self) -> Raw:
        """Where answers to calls come."""
        return self.stream or self

    def framed(self, message: bytes, *, version: str = MODERN) -> bytes:
        """Give a message as the door wants it on the wire."""
        if self.door == "socket":
            return message + b"\n"
        head = [
            f"POST {self.session or '/mcp'} HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
            f"Content-Length: {len(message)}",
        ]
        if self.door == "http":
            head += [f"MCP-Protocol-Version: {version}", *_mirrored(message)]
        return "\r\n".join([*head, "", ""]).encode() + message

    async def send(self, data: bytes) -> None:
        """Write, unless the server has closed already."""
        with suppress(OSError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> bytes:
        """Give what comes first: an answer's beginning, or nothing when the server closes."""
        async with asyncio.timeout(ANSWER_S):
            with suppress(OSError):
                return await self.reader.read(65536)
        return b""

    async def heard(self, *needles: bytes) -> bytes:
        """Give what comes until all of these are in it, or the server closes."""
        found = b""
        while not all(needle in found for needle in needles):
            if not (chunk := await self.answer()):
                break
            found += chunk
        return found

    async def closed(self) -> None:
        """Return once the server has closed."""
        async with asyncio.timeout(ANSWER_S):
            with suppress(OSError):
                while await self.reader.read(65536):
                    pass

    def hang_up(self) -> None:
        """Leave without a word: what is on its way is thrown away."""
        if self.stream:
            self.stream.hang_up()
        sock = self.writer.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def _mirrored(message: bytes) -> list[str]:
    try:
        parsed = json.loads(message)
        return [f"Mcp-Method: {parsed['method']}", f"Mcp-Name: {parsed['params']['name']}"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


async def connected(live: Live, door: str) -> Raw:
    """Connect to a door; over SSE with a stream of its own."""
    if door == "socket":
        path = live.data / "dicode.sock"
        return Raw(door, *await asyncio.open_unix_connection(path, limit=LIMIT))
    raw = Raw(door, *await _tcp(live))
    if door == "sse":
        raw.stream = await open_stream(live)
        raw.session = raw.stream.session
    return raw


@asynccontextmanager
async def knocking(live: Live, door: str) -> AsyncGenerator[Raw]:
    """Connect and leave."""
    raw = await connected(live, door)
    try:
        yield raw
    finally:
        raw.hang_up()


async def open_stream(live: Live) -> Raw:
    """Open an SSE stream and read where its messages go."""
    raw = Raw("sse", *await _tcp(live))
    await raw.send(b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
    async with asyncio.timeout(ANSWER_S):
        while not (line := await raw.reader.readline()).startswith(b"data: "):
            assert line, "the stream ended before its first event"
    raw.session = line.decode().removeprefix("data: ").strip()
    return raw


async def _tcp(live: Live) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(live.server.url or "")
    return await asyncio.open_connection(where.hostname, where.port, limit=LIMIT)


class Good:
    """A client that calls again and again on every door, each call on a connection of its own."""

    def __init__(self) -> None:
        self.rounds = 0
        self.slowest = 0.0
        self.leaving = False

    async def run(self, live: Live) -> None:
        """Call until told to leave, and twice more."""
        left = 2
        while left:
            left -= self.leaving
            for door in DOORS:
                began = monotonic()
                async with asyncio.timeout(ANSWER_S):
                    await _ask(live, door)
                self.slowest = max(self.slowest, monotonic() - began)
            self.rounds += 1


async def _ask(live: Live, door: str) -> None:
    async with knocking(live, door) as raw:
        await raw.send(raw.framed(call("get_status")))
        found = await raw.ear.heard(b'"structuredContent"')
        assert b'"version"' in found, (door, found)


@asynccontextmanager
async def served_meanwhile(live: Live, patience_s: float = 5.0) -> AsyncGenerator[Good]:
    """Have a good client call all the while; it must be answered during the block and after it."""
    good = Good()
    calling = asyncio.create_task(good.run(live))
    try:
        yield good
    finally:
        good.leaving = True
        await calling
    assert good.slowest < patience_s

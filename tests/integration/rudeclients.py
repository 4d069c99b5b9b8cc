"""A server as a process, raw connections to each of its doors, and a good client among the rude.

The server is no part of the test's process: there its helpers would, for the moment of a fork, hold
the clients' sockets, and the server takes what its children hold for a task's.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

from liveserver import Live

MODERN = "2026-07-28"
DOORS = ("socket", "http", "sse")
ANSWER_S = 30.0
START_S = 60.0
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


class Running(Live):
    """A server that runs as a process."""

    def __init__(self, root: Path, url: str) -> None:
        self.tasks = root / "tasks"
        self.data = root / "data"
        self.url = url


@contextmanager
def running_server(root: Path) -> Generator[Running]:
    """Run a server on ``root`` while the block lasts; it must end in order."""
    (root / "tasks").mkdir()
    command = ["-m", "dicode_mcp.daemon", "--data-dir", str(root / "data"), "--port", "0"]
    log = root / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *command, "--source", str(root / "tasks")],
            stderr=errors,
            env={**os.environ, "HOME": str(root), "DICODE_CONFIG": ""},
            cwd=root,
        )
    try:
        until = monotonic() + START_S
        while b" serves " not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert monotonic() < until, log.read_text()
            sleep(0.02)
        facts = json.loads((root / "data" / "server.lock").read_text())
        yield Running(root, f"http://{facts['host']}:{facts['port']}")
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        code = process.wait(START_S)
    assert code == 0, log.read_text()


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
        async with asyncio.timeout(2 * ANSWER_S):
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


async def connected(live: Running, door: str) -> Raw:
    """Connect to a door; over SSE with a stream of its own."""
    if door == "socket":
        path = live.data / "dicode.sock"
        return Raw(door, *await asyncio.open_unix_connection(path, limit=LIMIT))
    if door == "http":
        return Raw(door, *await _tcp(live))
    stream = await open_stream(live)
    return Raw(door, *await _tcp(live), stream.session, stream)


@asynccontextmanager
async def knocking(live: Running, door: str) -> AsyncGenerator[Raw]:
    """Connect and leave."""
    raw = await connected(live, door)
    try:
        yield raw
    finally:
        raw.hang_up()


async def open_stream(live: Running) -> Raw:
    """Open an SSE stream and read where its messages go."""
    raw = Raw("sse", *await _tcp(live))
    await raw.send(b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
    began = await raw.heard(b"data: /sse/messages", b"\n\n")
    found = re.search(rb"data: (\S+)\n", began)
    if not found:
        raw.hang_up()
    assert found, began
    raw.session = found[1].decode()
    return raw


async def _tcp(live: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(live.url)
    return await asyncio.open_connection(where.hostname, where.port, limit=LIMIT)


class Good:
    """A client that calls again and again on every door, each call on a connection of its own."""

    def __init__(self) -> None:
        self.rounds = 0
        self.slowest = 0.0
        self.leaving = False

    async def run(self, live: Running) -> None:
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


async def _ask(live: Running, door: str) -> None:
    async with knocking(live, door) as raw:
        await raw.send(raw.framed(call("get_status")))
        found = await raw.ear.heard(b'"structuredContent"')
        assert b'"version"' in found, (door, found)


@asynccontextmanager
async def served_meanwhile(live: Running, patience_s: float = 5.0) -> AsyncGenerator[Good]:
    """Have a good client call all the while; it must be answered during the block and after it."""
    good = Good()
    calling = asyncio.create_task(good.run(live))
    try:
        yield good
    finally:
        good.leaving = True
        await calling
    assert good.slowest < patience_s

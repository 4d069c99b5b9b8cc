"""Clients as thin as can be, so that what is timed is the server: one request, one answer.

Both speak the protocol era without a handshake. Reading an answer's JSON is left to the caller.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from bench.row import Unmeasurable

ERA = "2026-07-28"
ANSWER_S = 60.0

_META = {
    "io.modelcontextprotocol/protocolVersion": ERA,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def call_message(tool: str, arguments: dict[str, Any], number: int = 1) -> bytes:
    """Give a ``tools/call`` as JSON."""
    params = {"name": tool, "arguments": arguments, "_meta": _META}
    return json.dumps(
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    ).encode()


def value_of(answer: bytes) -> dict[str, Any]:
    """Read a tool's structured answer; a refusal cannot be measured."""
    message: dict[str, Any] = json.loads(answer)
    result: Any = message.get("result")
    if not isinstance(result, dict):
        raise Unmeasurable(f"the server answered {answer[:300]!r}")
    fields = cast("dict[str, Any]", result)
    if fields.get("isError"):
        raise Unmeasurable(f"the server refused: {fields.get('structuredContent')}")
    return cast("dict[str, Any]", fields["structuredContent"])


class Line:
    """A connection to a unix socket that carries one JSON message a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")

    def close(self) -> None:
        """Close it."""
        self._lines.close()
        self._connection.close()

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._connection.sendall(message + b"\n")

    def receive(self) -> bytes:
        """Wait for the next message."""
        answer = self._lines.readline()
        if not answer.endswith(b"\n"):
            raise Unmeasurable("the server closed the connection")
        return answer

    def ask(self, message: bytes) -> bytes:
        """Send one message and wait for the next."""
        self.send(message)
        return self.receive()

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and give its structured answer."""
        return value_of(self.ask(call_message(tool, arguments)))


@contextmanager
def line_to(path: Path) -> Generator[Line]:
    """Connect to a socket file while the block lasts. Raises ``OSError`` when nobody listens."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_S)
    try:
        connection.connect(str(path))
        line = Line(connection)
    except BaseException:
        connection.close()
        raise
    try:
        yield line
    finally:
        line.close()


def http_request(port: int, tool: str, arguments: dict[str, Any]) -> bytes:
    """Give a whole HTTP request that calls a tool at ``/mcp``."""
    body = call_message(tool, arguments)
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        "Accept: application/json, text/event-stream\r\n"
        f"MCP-Protocol-Version: {ERA}\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Http:
    """A kept-alive HTTP connection whose answers say their length."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")

    def close(self) -> None:
        """Close it."""
        self._stream.close()
        self._connection.close()

    def ask(self, request: bytes) -> bytes:
        """Send one request and give the body of the answer."""
        self._connection.sendall(request)
        status = self._stream.readline()
        length = -1
        while (header := self._stream.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if b" 200 " not in status or length < 0:
            raise Unmeasurable(f"the server answered {status!r} without a length or not with 200")
        return self._stream.read(length)


@contextmanager
def http_to(port: int) -> Generator[Http]:
    """Connect to a port of this machine while the block lasts."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        http = Http(connection)
        try:
            yield http
        finally:
            http.close()

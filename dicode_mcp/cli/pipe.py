"""The byte pipe of ``dicode mcp``: standard input and output on one side, the socket on the other.

It changes no byte. It reads along only to know which requests still wait for an answer, because
the server takes the end of its input as the client's leaving: the socket is half-closed once every
answer is through.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, cast

CHUNK = 256 * 1024
HIGH_WATER = 1024 * 1024
"""A side is not read while this much for the other side waits to be written."""
ANSWERS_SECONDS = 60.0
"""How long answers are awaited after the end of input; a tool call waits 55 s at most."""
CLOSING_SECONDS = 5.0
"""How long the server may take to close after the half-close."""


class End(Enum):
    """Why the pipe ended."""

    DONE = "done"
    """The input ended and every answer was passed on."""
    SERVER_GONE = "server_gone"
    CLIENT_GONE = "client_gone"
    """Nobody reads the output any more."""


class Ledger:
    """Which requests wait for an answer, read from the lines of both directions."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._rests: dict[str, list[bytes]] = {"asked": [], "answered": []}

    @property
    def settled(self) -> bool:
        """Whether every request seen has its answer."""
        return not self._waiting

    def asked(self, chunk: bytes) -> None:
        """Read bytes of the client."""
        for message in self._messages("asked", chunk):
            method = message.get("method")
            if method == "notifications/cancelled":
                params: Any = message.get("params")
                if isinstance(params, dict):
                    self._waiting.discard(_key(cast("dict[str, Any]", params).get("requestId")))
            elif method not in (None, "subscriptions/listen") and "id" in message:
                self._waiting.add(_key(message["id"]))

    def answered(self, chunk: bytes) -> None:
        """Read bytes of the server."""
        for message in self._messages("answered", chunk):
            if "method" not in message and "id" in message:
                self._waiting.discard(_key(message["id"]))

    def _messages(self, side: str, chunk: bytes) -> Iterator[dict[str, Any]]:
        rest = self._rests[side]
        if b"\n" not in chunk:
            rest.append(chunk)
            return
        *lines, last = (b"".join(rest) + chunk).split(b"\n")
        self._rests[side] = [last] if last else []
        for line in lines:
            try:
                message: Any = json.loads(line) if line.strip() else None
            except ValueError:
                continue
            if isinstance(message, dict):
                yield cast("dict[str, Any]", message)


def _key(request_id: Any) -> str:
    return json.dumps(request_id)


class Pipe:
    """One run of the pipe between two file descriptors and a connected socket."""

    def __init__(
        self, source: int, sink: int, connection: socket.socket, already_read: bytes = b""
    ) -> None:
        self._source = source
        self._sink = sink
        self._socket = connection
        self._ledger = Ledger()
        self._to_server = bytearray()
        self._to_client = bytearray(already_read)
        self._input_open = True
        self._half_closed = False
        self._server_open = True
        self._deadline: float | None = None
        # poll takes regular files and any descriptor; select stands in where poll fails on ttys.
        self._selector = (
            selectors.PollSelector()
            if sys.platform.startswith("linux")
            else selectors.SelectSelector()
        )
        self._ledger.answered(already_read)

    def run(self) -> End:
        """Pass bytes on until one side ends."""
        self._socket.setblocking(False)
        with self._selector, _nonblocking(self._sink):
            while True:
                end = self._step()
                if end is not None:
                    return end

    def _step(self) -> End | None:
        self._close_when_settled()
        if not self._server_open and not self._to_client:
            return End.DONE if self._half_closed else End.SERVER_GONE
        self._register()
        timeout = None if self._deadline is None else self._deadline - time.monotonic()
        if timeout is not None and timeout <= 0:
            return self._expired()
        ready = {key.fd: events for key, events in self._selector.select(timeout)}
        return self._move(ready)

    def _move(self, ready: dict[int, int]) -> End | None:
        wire = ready.get(self._socket.fileno(), 0)
        try:
            if wire & selectors.EVENT_READ:
                self._read_server()
            if wire & selectors.EVENT_WRITE:
                sent = self._socket.send(self._to_server[:CHUNK])
                del self._to_server[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._lose_server()
        if ready.get(self._source, 0) & selectors.EVENT_READ:
            self._read_input()
        try:
            if ready.get(self._sink, 0) & selectors.EVENT_WRITE:
                del self._to_client[: os.write(self._sink, self._to_client[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            return End.CLIENT_GONE
        return None

    def _read_server(self) -> None:
        chunk = self._socket.recv(CHUNK)
        if not chunk:
            self._lose_server()
            return
        self._to_client += chunk
        self._ledger.answered(chunk)

    def _read_input(self) -> None:
        try:
            chunk = os.read(self._source, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if chunk:
            self._to_server += chunk
            self._ledger.asked(chunk)
        else:
            self._input_open = False
            self._deadline = time.monotonic() + ANSWERS_SECONDS

    def _lose_server(self) -> None:
        self._server_open = False
        self._to_server.clear()

    def _close_when_settled(self) -> None:
        finished = not self._input_open and not self._to_server and self._ledger.settled
        if finished and self._server_open and not self._half_closed:
            self._half_close()

    def _half_close(self) -> None:
        self._half_closed = True
        self._deadline = time.monotonic() + CLOSING_SECONDS
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._lose_server()

    def _expired(self) -> End | None:
        if self._half_closed:
            return End.DONE
        self._half_close()
        return None

    def _register(self) -> None:
        wire = 0
        if self._server_open:
            if len(self._to_client) < HIGH_WATER:
                wire |= selectors.EVENT_READ
            if self._to_server:
                wire |= selectors.EVENT_WRITE
        takes_input = self._input_open and self._server_open
        reads = takes_input and len(self._to_server) < HIGH_WATER
        self._watch(self._socket.fileno(), wire)
        self._watch(self._source, selectors.EVENT_READ if reads else 0)
        self._watch(self._sink, selectors.EVENT_WRITE if self._to_client else 0)

    def _watch(self, fd: int, events: int) -> None:
        known = self._selector.get_map().get(fd)
        if known is None:
            if events:
                self._selector.register(fd, events)
        elif not events:
            self._selector.unregister(fd)
        elif known.events != events:
            self._selector.modify(fd, events)


@contextmanager
def _nonblocking(fd: int) -> Generator[None]:
    """Make writes to a pipe or socket return at once, and leave the descriptor as it was.

    A terminal or a file stays as it is: the flag would reach every process that shares it.
    """
    mode = os.fstat(fd).st_mode
    before = os.get_blocking(fd)
    change = before and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
    if change:
        os.set_blocking(fd, False)
    try:
        yield
    finally:
        if change:
            os.set_blocking(fd, True)

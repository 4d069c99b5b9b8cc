"""The listeners of one gate: they take connections as many and as fast as is good for all.

What comes beyond that waits in the kernel. What a connection is for is not known here.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable

from dicode_mcp.executor.sandbox.gate.pace import Pace

_BACKLOG = 128
_AT_ONCE = 16
_BURST, _RATE = 500, 500
"""New connections, and how many a second when it goes on."""


class Entrance:
    """Owns the listeners and what they accept until it is ``done``. ``full`` is told of a limit."""

    def __init__(self, most: int, full: Callable[[], None]) -> None:
        self._most = most
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[int, socket.socket] = {}
        self._spare: list[int] = []
        self._open: set[socket.socket] = set()
        self._pace = Pace(_RATE, _BURST, self._loop.time())
        self._resting: asyncio.TimerHandle | None = None
        self._closed = False
        self.accepted: asyncio.Queue[socket.socket | None] = asyncio.Queue()
        """Connections, not blocking; None after ``close``."""

    def begin(self, listeners: Iterable[tuple[int, socket.socket]], spare: Iterable[int]) -> None:
        """Serve listeners; ``spare`` are descriptors of sockets to become some."""
        self._spare += spare
        for port, listener in listeners:
            self._serve(port, listener)

    def has(self, port: int) -> bool:
        """Tell whether a port is listened on."""
        return port in self._listeners

    def open(self, port: int) -> bool:
        """Listen on one more port; tells whether there was a socket left to try it with."""
        if not self._spare:
            return False
        made = socket.socket(fileno=self._spare.pop())
        try:
            made.bind(("::" if made.family == socket.AF_INET6 else "", port))
            made.listen(_BACKLOG)
        except OSError:
            made.close()  # the run itself listens there
        else:
            self._serve(port, made)
        return True

    def done(self, connection: socket.socket) -> None:
        """Close a connection and make room for another."""
        connection.close()
        self._open.discard(connection)
        if not self._closed and len(self._open) == self._most - 1:
            self._listen(True)

    def close(self) -> None:
        """Take what waits, then nothing any more."""
        if self._closed:
            return
        for listener in self._listeners.values():
            self._accept(listener)
        self._closed = True
        if self._resting is not None:
            self._resting.cancel()
        self._listen(False)
        for each in self._listeners.values():
            each.close()
        for fd in self._spare:
            os.close(fd)
        self.accepted.put_nowait(None)

    def abandon(self) -> None:
        """Close also what was accepted and nobody has begun with."""
        self.close()
        for each in tuple(self._open):
            self.done(each)

    def _serve(self, port: int, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listeners[port] = listener
        if self._may_accept():
            self._loop.add_reader(listener, self._accept, listener)

    def _listen(self, on: bool) -> None:
        for listener in self._listeners.values():
            if on:
                self._loop.add_reader(listener, self._accept, listener)
            else:
                self._loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            if not self._may_accept():
                self._rest()
                return
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            self._pace.take(self._loop.time())
            self._open.add(connection)
            self.accepted.put_nowait(connection)

    def _may_accept(self) -> bool:
        return len(self._open) < self._most and not self._pace.rest and self._resting is None

    def _rest(self) -> None:
        """Leave what comes in the kernel's queue: until a connection ends, or for a moment."""
        self._listen(False)
        if len(self._open) >= self._most:
            self._full()
        elif self._resting is None:
            self._resting = self._loop.call_later(self._pace.rest, self._resume)

    def _resume(self) -> None:
        self._resting = None
        self._listen(True)

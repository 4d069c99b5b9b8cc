"""The server's end of the socket to a cage: what it told of its start and of its end.

A cage with a gate also sends the descriptors of its network, before anything of the task runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

_MOST = 64 * 1024
_MOST_FDS = 253
_ROOM = socket.CMSG_SPACE(_MOST_FDS * array("i").itemsize)


class NotApplied(Exception):
    """A cage could not be made; ``step`` is where it failed, empty when it ended without a word."""

    def __init__(self, step: str = "", errno: int = 0, text: str = "", place: str = "") -> None:
        super().__init__(step)
        self.step = step
        self.errno = errno
        self.text = text
        self.place = place


@dataclass(frozen=True, slots=True)
class End:
    """How the task's own process ended, as the first process of its cage saw it."""

    status: int
    """As ``os.wait`` gives it."""
    max_rss: int
    strays: int
    limit: str | None = None
    cpu_seconds: float = 0.0
    """Of all processes in the cage."""
    met: str | None = None
    """A limit it came to and was not ended by."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a cage made for its gate: a socket for names, listeners by port, idle sockets."""

    names: int
    listeners: tuple[tuple[int, int], ...]
    """Port and descriptor."""
    spare: tuple[int, ...]
    six: bool


class TakesNetwork(Protocol):
    """Who serves a cage's network; the descriptors are its own from then on."""

    def take_network(self, network: Network) -> None:
        """Take the sockets."""
        ...

    def take_calls(self, fd: int) -> None:
        """Take the descriptor on which the cage's connections are told before they are made."""
        ...


class Control:
    """Reads what a cage tells. ``applied`` answers once; ``end`` is there after the process's."""

    def __init__(self, connection: socket.socket, gate: TakesNetwork | None = None) -> None:
        self._gate = gate
        self._fds: list[int] = []
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._buffer = b""
        self._open = True
        self._on_end: Callable[[], None] | None = None
        self.end: End | None = None
        self._loop.add_reader(connection, self._read)

    async def applied(self) -> None:
        """Wait until the cage is closed around the process. Raises ``NotApplied``."""
        await asyncio.shield(self._ready)

    def on_end(self, call: Callable[[], None]) -> None:
        """Have a function called when the cage tells its end: it is empty by then."""
        self._on_end = call
        if self.end is not None:
            call()

    def go(self) -> None:
        """Let the process begin."""
        self._socket.send(b"g")

    def hand_over(self, file: int, connection: int) -> None:
        """Give a process that waits its run: a file of what it needs, and its connection."""
        socket.send_fds(self._socket, [b"r"], [file, connection])

    def close(self) -> None:
        """Read what is still there and let go."""
        while self._open and self._read():
            pass
        self._shut()

    def _read(self) -> bool:
        try:
            data, notes, _, _ = self._socket.recvmsg(_MOST, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data, notes = b"", []
        self._fds += _descriptors(notes)
        if not data or len(self._buffer) > _MOST:
            self._shut()
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._take(line)
        return True

    def _take(self, line: bytes) -> None:
        # Only the cage's own processes can write here; still, it is no reason to fail.
        try:
            told: Any = json.loads(line)
            if self._hand_over(told):
                return
            found = _MEANINGS[next(iter(told))](told)
        except (ValueError, LookupError, TypeError, StopIteration):
            return
        if isinstance(found, End):
            self.end = found
            if self._on_end is not None:
                self._on_end()
        elif not self._ready.done():
            if found is None:
                self._ready.set_result(None)
            else:
                self._fail(found)

    def _hand_over(self, told: dict[str, Any]) -> bool:
        """Give the gate what came with a line about the network; tells whether it was one."""
        if "net" in told:
            ports = [int(port) for port in told["net"]]
            fds = self._take_fds(1 + len(ports) + int(told["spare"]))
            if self._gate is not None and fds:
                listeners = tuple(zip(ports, fds[1:], strict=False))
                spare = tuple(fds[1 + len(ports) :])
                self._gate.take_network(Network(fds[0], listeners, spare, bool(told["six"])))
                return True
        elif "calls" in told:
            fds = self._take_fds(1)
            if self._gate is not None and fds:
                self._gate.take_calls(fds[0])
                return True
        else:
            return False
        _close(fds)
        return True

    def _take_fds(self, count: int) -> list[int]:
        taken, self._fds = self._fds[:count], self._fds[count:]
        if len(taken) == count:
            return taken
        _close(taken)
        return []

    def _fail(self, error: NotApplied) -> None:
        self._ready.set_exception(error)
        self._ready.exception()  # it may be that nobody waits

    def _shut(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._socket.close()
        _close(self._fds)
        self._fds = []
        if not self._ready.done():
            self._fail(NotApplied())


def _descriptors(notes: list[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, data in notes:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _end(told: dict[str, Any]) -> End:
    return End(
        int(told["end"]),
        int(told["max_rss"]),
        int(told["strays"]),
        told.get("limit"),
        float(told["cpu"]),
        told.get("met"),
    )


def _error(told: dict[str, Any]) -> NotApplied:
    step, errno, text, place = told["error"]
    return NotApplied(str(step), int(errno), str(text), str(place))


def _ready(told: dict[str, Any]) -> None:
    return None


_MEANINGS: dict[str, Callable[[dict[str, Any]], End | NotApplied | None]] = {
    "end": _end,
    "error": _error,
    "ready": _ready,
}

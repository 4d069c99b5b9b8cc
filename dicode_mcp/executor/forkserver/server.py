"""One fork server: its process, and the talk with it over a socket.

What it does when asked is ``dicode_mcp.cage.forks``. A child it makes is this process's own and
waits for the word on its control socket, like one that was started.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from dicode_mcp import children
from dicode_mcp.cage.forks import IPC, ROOM
from dicode_mcp.executor.exits import ExitWatch
from dicode_mcp.executor.sandbox.probe import CAGE
from dicode_mcp.protocols import Warm

IPC_FD = IPC
READY_S = 30.0
ANSWER_S = 5.0
_END_S = 2.0
_MARKS = 200
"""Bytes for a run's marks, which are less than half of it."""


class Unusable(Exception):
    """A fork server could not be started, or did not make a child; the text says why."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What makes fork servers interchangeable: the interpreter, and what it has imported."""

    python: str
    warm: Warm


@dataclass(frozen=True, slots=True)
class Request:
    """A child to make. ``fds``: stdout, stderr, control, plan and, if any, the connection.

    ``spaces`` are the namespaces of its plan.
    """

    marks: bytes
    spaces: Sequence[str]
    fds: Sequence[int]


class ForkServer:
    """A process that was started once. ``start`` it, then ``fork``; ``close`` and ``ended``."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.forks = 0
        self.usable = False
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._last = 0
        self._closed = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process, 0 before it is started."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it and wait until its imports are done. Raises ``Unusable``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        self._loop.add_reader(ours, self._read)
        warm = self.kind.warm
        fd = theirs.fileno()
        argv = [self.kind.python, "-I", "-S", CAGE, "serve", str(fd)]
        argv += [warm.file, warm.path, *warm.imports]
        # Not /dev/null: Python looks at start whether its output can be sought in.
        hears, tells = os.pipe()
        try:
            with theirs:
                self._process = await children.start(
                    *argv,
                    # Nothing of the server's; its first variable is the room for marks.
                    env={ROOM: "." * _MARKS, "PATH": os.defpath, "LANG": "C.UTF-8"},
                    cwd="/",
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=tells,
                    stderr=tells,
                    pass_fds=(fd,),
                    start_new_session=True,
                )
            async with asyncio.timeout(READY_S):
                await asyncio.shield(self._ready)
        except TimeoutError as error:
            raise Unusable("it was not ready in time") from error
        except OSError as error:
            raise Unusable(f"{self.kind.python}: {error.strerror}") from error
        finally:
            os.close(hears)
            os.close(tells)
        if self._closed.is_set():
            raise Unusable("it was closed")
        self.usable = True

    async def fork(self, request: Request) -> int:
        """Make a child and give its pid. Raises ``Unusable``; then there is none."""
        if not self.usable or self._socket is None:
            raise Unusable("it has ended")
        self._last += 1
        number = self._last
        asked = {"id": number, "marks": request.marks, "spaces": list(request.spaces)}
        answer: asyncio.Future[int] = self._loop.create_future()
        self._asked[number] = answer
        try:
            socket.send_fds(self._socket, [marshal.dumps(asked, 2)], list(request.fds))
            async with asyncio.timeout(ANSWER_S):
                pid = await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(_reap)
            raise
        except (OSError, TimeoutError) as error:
            answer.add_done_callback(_reap)
            self.close()
            raise Unusable(f"it did not answer ({type(error).__name__})") from error
        if pid <= 0:
            raise Unusable(f"it could not fork: {os.strerror(-pid)}")
        self.forks += 1
        return pid

    def close(self) -> None:
        """Let it end; the children it made go on."""
        self.usable = False
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        gone = Unusable("it has ended")
        for future in (self._ready, *self._asked.values()):
            if not future.done():
                future.set_exception(gone)
                future.exception()  # it may be that nobody waits
        self._asked.clear()
        self._closed.set()

    async def ended(self) -> None:
        """Wait until it is closed, by us or by its own end, and its process is gone."""
        try:
            await self._closed.wait()
        finally:
            self.close()
            await self._collect()

    async def _collect(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            async with asyncio.timeout(_END_S):
                await asyncio.shield(children.waited(process))
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ProcessLookupError):
                process.kill()
            await children.waited(process)

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        word, _, rest = data.decode("utf-8", "replace").partition(" ")
        if word == "ready":
            self._ready.set_result(None)
        elif word.isdigit():
            answer = self._asked.pop(int(word), None)
            if answer is not None and not answer.done():
                answer.set_result(int(rest))
        else:
            if word == "failed" and not self._ready.done():
                self._ready.set_exception(Unusable(rest))
            self.close()


def _reap(answer: asyncio.Future[int]) -> None:
    """Collect a child that nobody wants any more; without the word it ends by itself."""
    if answer.cancelled() or answer.exception() is not None or answer.result() <= 0:
        return
    pid = answer.result()

    def ended() -> None:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)

    ExitWatch(pid, ended)

"""Making a run's connections in its place, where it has no network of its own.

Each ``connect`` waits for the server, which puts a socket that is connected already, to itself, in
the place of the one the call was for. The kernel never makes the call. So nothing depends on
memory that may change after it was read: what was read is what the connection leads to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from collections.abc import Callable
from struct import pack

from dicode_mcp.executor.sandbox.gate.addresses import Address
from dicode_mcp.executor.sandbox.gate.calls import Call, Notice, Notices, read_address

_ADD = 0x40182103
_SET = 1
_BACKLOG = 1024
HOST = "127.0.0.1"


class Doors(Notices):
    """Answers the notices on one descriptor, which it owns. ``judge`` says what is connected.

    ``path`` is the one unix socket that may be connected to: the run's own to the server.
    """

    def __init__(
        self, fd: int, hall: Hall, judge: Callable[[Call], bool], path: str | None
    ) -> None:
        super().__init__(fd)
        self._hall = hall
        self._judge = judge
        self._path = path

    def answer(self, notice: Notice) -> None:
        """Put a connected socket in the place of the caller's, or refuse."""
        try:
            with self._made(notice) as made:
                keep = _like(made, notice)
                place = pack("=QIIII", notice.mark, _SET, made.fileno(), notice.descriptor, keep)
                fcntl.ioctl(self._fd, _ADD, place)
        except OSError as error:
            self.send(notice, error.errno or errno.EACCES)
        else:
            self.send(notice)

    def _made(self, notice: Notice) -> socket.socket:
        """Connect as a call wants. Raises ``OSError`` with what the caller is to be told."""
        data = self.given(notice)
        if data is None:
            raise PermissionError(errno.EACCES, "unread")
        call = read_address(data, notice.pid)
        if call is not None and self._judge(call):
            return self._hall.lead(call.address, call.port)
        if self._path is not None and _path(data) == self._path:
            return _to_path(self._path)
        raise PermissionError(errno.EACCES, "refused")


class Hall:
    """Where the connections arrive: a listener that knows of each what it was made for.

    What comes there otherwise, from other programs of this machine, has no place.
    """

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0), backlog=_BACKLOG)
        self.port = int(self.listener.getsockname()[1])
        self._places: dict[int, tuple[Address, int]] = {}

    def lead(self, address: Address, port: int) -> socket.socket:
        """Make a connection that stands for one to a place. Raises ``OSError``."""
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.connect_ex((HOST, self.port))
            if not _connected(made):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except BaseException:
            made.close()
            raise
        self._places[made.getsockname()[1]] = (address, port)
        return made

    def place(self, arrived: socket.socket) -> tuple[Address, int] | None:
        """Tell what a connection that was accepted stands for; None for a stranger's."""
        try:
            return self._places.pop(arrived.getpeername()[1], None)
        except OSError:
            return None


def _connected(made: socket.socket) -> bool:
    # On the loopback all is done once the call is back, unless the queue is full.
    poll = select.poll()
    poll.register(made, select.POLLOUT)
    ready = poll.poll(0)
    return bool(ready) and made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def _to_path(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def _path(data: bytes) -> str | None:
    if len(data) < 3 or int.from_bytes(data[:2], "little") != socket.AF_UNIX or not data[2]:
        return None
    return os.fsdecode(data[2:].partition(b"\0")[0])


def _like(made: socket.socket, notice: Notice) -> int:
    """Make a socket wait or not as the caller's does; gives the flag of its descriptor."""
    flags = 0
    try:
        with open(f"/proc/{notice.pid}/fdinfo/{notice.descriptor}", encoding="ascii") as file:
            for line in file:
                if line.startswith("flags:"):
                    flags = int(line.split()[1], 8)
    except OSError:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
    made.setblocking(not flags & os.O_NONBLOCK)
    return flags & os.O_CLOEXEC

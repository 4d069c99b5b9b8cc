"""Hearing of each ``connect`` before it is made, by the kernel's own notices (seccomp).

A notice is no wall: what it points to may change after it was read. It is used to open a port in
time and to refuse early with a clear error; the gate behind judges again by what really came.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import pack, unpack, unpack_from

from dicode_mcp.executor.sandbox.gate.addresses import Address, plain
from dicode_mcp.executor.sandbox.gate.pace import Pace

_RECEIVE, _SEND, _VALID = 0xC0502100, 0xC0182101, 0x40082102
_SIZE = 80
_ARGUMENTS = 32
_INT = 0xFFFFFFFF
_GO_ON = 1
_LONGEST = 110
_MOST_TABLE = 1 << 20
_AT_ONCE = 16
_BURST, _RATE = 1000, 1000


@dataclass(frozen=True, slots=True)
class Call:
    """A connection that somebody is about to make."""

    address: Address
    port: int
    pid: int = 0


Verdict = Callable[[Call], bool]
"""Tells whether to let a call go on."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What the kernel tells of a call that waits: whose it is and what it was given."""

    mark: int
    pid: int
    descriptor: int
    where: int
    length: int

    @staticmethod
    def read(raw: bytes | bytearray) -> Notice:
        """Read the kernel's own form."""
        mark, pid = unpack_from("=QI", raw)
        descriptor, where, length = unpack_from("=QQQ", raw, _ARGUMENTS)
        return Notice(mark, pid, descriptor & _INT, where, length & _INT)


class Notices(ABC):
    """Takes the notices that come on one descriptor, which it owns, at a bounded pace."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(_RATE, _BURST, self._loop.time())
        self._rest: asyncio.TimerHandle | None = None
        self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Let go; later calls fail for whoever makes them."""
        if self._rest is not None:
            self._rest.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._one():
                break
            self._pace.take(self._loop.time())
        if self._pace.rest and self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._rest = self._loop.call_later(self._pace.rest, self._resume)

    def _resume(self) -> None:
        self._rest = None
        self._loop.add_reader(self._fd, self._read)

    def _one(self) -> bool:
        if self._fd < 0 or not _readable(self._fd):
            return False
        notice = bytearray(_SIZE)
        try:
            fcntl.ioctl(self._fd, _RECEIVE, notice)
        except OSError as error:
            # ENOENT: who asked is gone. Anything else will not get better.
            if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                self.close()
            return False
        self.answer(Notice.read(notice))
        return True

    @abstractmethod
    def answer(self, notice: Notice) -> None:
        """Decide about a call, and let it go on, by ``send``."""

    def send(self, notice: Notice, error: int = 0, *, go_on: bool = False) -> None:
        """End a call with a result, or let the kernel make it."""
        try:
            told = pack("=QqiI", notice.mark, 0, -error, _GO_ON if go_on else 0)
            fcntl.ioctl(self._fd, _SEND, told)
        except OSError:
            pass  # who asked is gone

    def given(self, notice: Notice) -> bytes | None:
        """Read the address a call was given; None where that cannot be done."""
        try:
            memory = os.open(f"/proc/{notice.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = os.pread(memory, min(notice.length, _LONGEST), notice.where)
            fcntl.ioctl(self._fd, _VALID, pack("=Q", notice.mark))
        except (OSError, OverflowError):
            return None
        finally:
            os.close(memory)
        return data


class Calls(Notices):
    """Answers each by what ``judge`` says of it, and leaves the connecting to the kernel."""

    def __init__(self, fd: int, judge: Verdict) -> None:
        super().__init__(fd)
        self._judge = judge

    def answer(self, notice: Notice) -> None:
        """Refuse what would not be allowed; what cannot be read goes on, to be judged later."""
        data = self.given(notice)
        call = read_address(data, notice.pid) if data is not None else None
        go_on = call is None or self._judge(call)
        self.send(notice, 0 if go_on else errno.EACCES, go_on=go_on)


def listens(pid: int, port: int) -> bool:
    """Tell whether anybody in the network of a process listens on a TCP port."""
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                text = file.read(_MOST_TABLE)
        except OSError:
            continue
        # sl local remote state …; a listener has nobody at the other end.
        if re.search(rf":{port:04X} 0+:0000 0A ", text):
            return True
    return False


def read_address(data: bytes, pid: int = 0) -> Call | None:
    """Read what ``connect`` is given; None for what is no address of the internet."""
    if len(data) < 8:
        return None
    (family,) = unpack("=H", data[:2])
    (port,) = unpack("!H", data[2:4])
    if family == socket.AF_INET:
        return Call(IPv4Address(data[4:8]), port, pid)
    if family == socket.AF_INET6 and len(data) >= 24:
        return Call(plain(IPv6Address(data[8:24])), port, pid)
    return None


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))

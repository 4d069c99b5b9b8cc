"""The way out that all gates of a server share: looking names up, connecting, and what it marks.

It knows no rules: whoever calls has judged the address before.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dicode_mcp.executor.carriers import hold_mark
from dicode_mcp.executor.sandbox.gate.addresses import Address, Kind, kind, parse
from dicode_mcp.executor.sandbox.gate.pump import BUFFER

Resolve = Callable[[str], Sequence[str]]
"""Gives the addresses of a name; blocks. Raises ``OSError``."""

_LOOKUP_S = 10.0
_CONNECT_S = 10.0
_REMEMBERED_S = 10.0
_MOST_REMEMBERED = 1024
_LOOKING_UP = 8
_OWN_FILES = 300
"""Descriptors that the rest of the server is left with."""


def system_resolve(name: str) -> list[str]:
    """Look a name up as this machine does."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Outside:
    """Use it with ``with``. ``own_ports`` gives the ports the server itself listens on."""

    def __init__(
        self,
        resolve: Resolve = system_resolve,
        own_ports: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self._resolve = resolve
        self._own_ports = own_ports
        self._threads = ThreadPoolExecutor(_LOOKING_UP, thread_name_prefix="gate-names")
        self._remembered: dict[str, tuple[float, tuple[Address, ...]]] = {}
        self._places = asyncio.Semaphore(_places())
        self._marks: set[int] = set()
        self._mark: socket.socket | None = None
        self.buffer = bytearray(BUFFER)
        """What all pumps of the one event loop read into."""

    def close(self) -> None:
        """Let the threads end; one that waits for an answer is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def is_ours(self, inode: int) -> bool:
        """Tell whether a socket is one that a task's bytes go through."""
        return inode in self._marks

    async def look_up(self, name: str) -> tuple[Address, ...]:
        """Give a name's addresses in the order to try them. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        known = self._remembered.get(name)
        if known is not None and known[0] > loop.time():
            return known[1]
        try:
            async with asyncio.timeout(_LOOKUP_S):
                texts = await loop.run_in_executor(self._threads, self._resolve, name)
        except TimeoutError:
            raise OSError(f"no name server answered within {_LOOKUP_S:g} s") from None
        found = tuple(address for text in texts if (address := parse(text)) is not None)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[name] = (loop.time() + _REMEMBERED_S, found)
        return found

    def is_server(self, address: Address, port: int) -> bool:
        """Tell whether an address is where this server itself listens."""
        return port in self._own_ports() and _is_own(address)

    async def connect(self, address: Address, port: int) -> socket.socket:
        """Connect to an address, marked as a task's. Raises ``OSError``."""
        if self._mark is None:
            self._mark = hold_mark()  # before the first: other servers must see it then
            weakref.finalize(self, self._mark.close)
        await self._places.acquire()
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            made = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            self._places.release()
            raise
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._marks.add(os.fstat(made.fileno()).st_ino)
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.get_running_loop().sock_connect(made, (str(address), port))
        except TimeoutError:
            self.release(made)
            raise OSError(f"no answer within {_CONNECT_S:g} s") from None
        except BaseException:
            self.release(made)
            raise
        return made

    def release(self, made: socket.socket) -> None:
        """Close a connection, and forget its mark first: its number is used again."""
        self._marks.discard(os.fstat(made.fileno()).st_ino)
        made.close()
        self._places.release()


def _places() -> int:
    """Give how many connections there may be at once: two descriptors each."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 4096
    return max(16, min(4096, (soft - _OWN_FILES) // 2))


def _is_own(address: Address) -> bool:
    """Tell whether an address is one of this machine's."""
    if kind(address) is Kind.LOOPBACK:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as tried:
            tried.bind((str(address), 0))
    except OSError:
        return False
    return True

"""The sockets that names are asked on: packets and streams, answered by the stub, within bounds."""

from __future__ import annotations

import asyncio
import socket
from struct import pack, unpack

from dicode_mcp.executor.sandbox.gate.dns import Lookup, answer
from dicode_mcp.executor.sandbox.gate.pace import Pace

_AT_ONCE = 16
_BURST, _RATE = 2000, 1000
_LONGEST = 2048
_STREAM_S = 10.0
_MOST_IN_STREAM = 32
_IPV6_PKTINFO, _IPV6_FREEBIND = 50, 78
_ROOM = socket.CMSG_SPACE(20)


class Questions:
    """Answers packets on one socket, which it owns, at a bounded pace."""

    def __init__(self, asked: socket.socket, lookup: Lookup) -> None:
        self._socket = asked
        self._lookup = lookup
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(_RATE, _BURST, self._loop.time())
        self._rest: asyncio.TimerHandle | None = None
        asked.setblocking(False)
        if asked.family == socket.AF_INET6:
            asked.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            # To answer from an address that no interface has.
            asked.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        self._loop.add_reader(asked, self._read)

    def close(self) -> None:
        """Let go."""
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet, notes, _, who = self._socket.recvmsg(_LONGEST, _ROOM)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an earlier answer found nobody
            self._answer(packet, notes, who)
            self._pace.take(self._loop.time())
        if self._pace.rest:
            self._loop.remove_reader(self._socket)
            self._rest = self._loop.call_later(self._pace.rest, self._resume)

    def _resume(self) -> None:
        self._rest = None
        self._loop.add_reader(self._socket, self._read)

    def _answer(
        self, packet: bytes, notes: list[tuple[int, int, bytes]], who: tuple[str, int]
    ) -> None:
        told = answer(packet, self._lookup)
        if told is None:
            return
        # From the address that was asked, or the answer would not be taken for one.
        back = [note for note in notes if note[:2] == (socket.IPPROTO_IPV6, _IPV6_PKTINFO)]
        try:
            self._socket.sendmsg([told], back, 0, who)
        except OSError:
            pass  # who asked has gone


async def answer_stream(asked: socket.socket, lookup: Lookup) -> bool:
    """Answer what is asked on a connection, for a few seconds; tells whether it ended in order."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_STREAM_S):
            for _ in range(_MOST_IN_STREAM):
                head = await _exactly(asked, 2)
                if head is None:
                    return True
                (size,) = unpack("!H", head)
                packet = await _exactly(asked, size) if size <= _LONGEST else None
                told = answer(packet, lookup) if packet else None
                if told is None:
                    return False
                await loop.sock_sendall(asked, pack("!H", len(told)) + told)
    except (TimeoutError, OSError):
        return False
    return True


async def _exactly(asked: socket.socket, size: int) -> bytes | None:
    loop = asyncio.get_running_loop()
    got = b""
    while len(got) < size:
        more = await loop.sock_recv(asked, size - len(got))
        if not more:
            return None
        got += more
    return got

"""Moving bytes between two connections, both ways, as fast as the slower side takes them.

All connections share one buffer: only what one side could not take at once is kept for it, and
until it has taken that nothing more is read for it.
"""

from __future__ import annotations

import asyncio
import socket
import struct

BUFFER = 256 * 1024
_RESET = struct.pack("ii", 1, 0)


class Pump:
    """Two connected sockets, not blocking, which are the caller's to close. ``run`` once."""

    def __init__(self, inner: socket.socket, outer: socket.socket, buffer: bytearray) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self.active_at = self._loop.time()
        self._last = False
        self._ways = (_Way(self, inner, outer, buffer), _Way(self, outer, inner, buffer))

    @property
    def sent(self) -> int:
        """Bytes that came from the inner side."""
        return self._ways[0].moved

    @property
    def received(self) -> int:
        """Bytes that went to the inner side."""
        return self._ways[1].moved

    async def run(self, idle_s: float) -> bool:
        """Move until both sides have ended, one fails, or nothing has moved for ``idle_s``.

        Tells whether both ended in order.
        """
        try:
            for way in self._ways:
                way.begin()
            return await self._ended(idle_s)
        finally:
            for way in self._ways:
                way.stop()

    async def _ended(self, idle_s: float) -> bool:
        while (left := self.active_at + idle_s - self._loop.time()) > 0:
            done, _ = await asyncio.wait({self._done}, timeout=left)
            if done:
                return self._done.exception() is None
        return False

    def finish(self, error: OSError | None = None) -> None:
        """Note that a way has ended; with the second, or an error, all has."""
        if self._done.done():
            return
        if error is not None:
            self._done.set_exception(error)
            self._done.exception()  # looked at later, or never
        elif self._ways[0].over and (self._last or self._ways[1].over):
            self._done.set_result(None)

    def last(self) -> None:
        """Deliver what the inner side has sent, and then end: nobody is there to hear more."""
        self._last = True
        self.finish()

    def touch(self) -> None:
        """Note that something moved."""
        self.active_at = self._loop.time()


class _Way:
    """One direction."""

    def __init__(
        self, pump: Pump, source: socket.socket, target: socket.socket, buffer: bytearray
    ) -> None:
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._target = target
        self._view = memoryview(buffer)
        self._left = b""
        self.moved = 0
        self.over = False

    def begin(self) -> None:
        self._loop.add_reader(self._source, self._read)

    def stop(self) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._target)

    def _read(self) -> None:
        try:
            count = self._source.recv_into(self._view)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._pump.finish(error)
            return
        if count == 0:
            self._end()
            return
        self._pump.touch()
        self.moved += count
        sent = self._send(self._view[:count])
        if sent < count:
            self._left = bytes(self._view[sent:count])
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._target, self._write)

    def _write(self) -> None:
        sent = self._send(self._left)
        if sent:
            self._pump.touch()
        self._left = self._left[sent:]
        if not self._left:
            self._loop.remove_writer(self._target)
            self._loop.add_reader(self._source, self._read)

    def _send(self, data: memoryview | bytes) -> int:
        try:
            return self._target.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._pump.finish(error)
            return 0

    def _end(self) -> None:
        """Pass the end on; the other direction may last."""
        self._loop.remove_reader(self._source)
        self.over = True
        try:
            self._target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the target has ended too
        self._pump.finish()


def break_off(connection: socket.socket) -> None:
    """Make the other side see, on closing, a broken connection and not an orderly end."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass  # it is broken already

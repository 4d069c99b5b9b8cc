"""A unix socket that lets one process of one user in, once.

For runtimes that cannot take over an inherited descriptor. What is said over the connection is
the session's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from dicode_mcp.credentials import read_peer
from dicode_mcp.errors import Code, DicodeError

_BACKLOG = 4


class Door:
    """Listens at ``path`` inside a ``with`` block; afterwards nothing is left there.

    The folder must be private to ``uid``; one that is missing is made so and removed again.
    Raises ``DicodeError(INTERNAL)`` when it cannot listen.
    """

    def __init__(self, path: Path, uid: int) -> None:
        self._path = path
        self._uid = uid
        self._listener: socket.socket | None = None
        self._made_folder = False
        self._wake = asyncio.Event()
        self._last = False

    def __enter__(self) -> Self:
        """Begin to listen."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._made_folder = _private_folder(self._path.parent, self._uid)
            listener.bind(str(self._path))
            os.chmod(self._path, 0o600)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            self._clear()
            what = os.strerror(error.errno) if error.errno else str(error)
            raise DicodeError(
                Code.INTERNAL, f"the task's socket cannot be made at {self._path}: {what}"
            ) from error
        self._listener = listener
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening and remove the socket."""
        self._close()

    async def admit(self) -> socket.socket | None:
        """Give the first connection of the user and stop listening; None once ``shut``."""
        loop = asyncio.get_running_loop()
        listener = self._listener
        assert listener is not None
        loop.add_reader(listener, self._wake.set)
        try:
            while True:
                last = self._last
                self._wake.clear()
                connection = self._accept(listener)
                if connection is not None or last:
                    return connection
                await self._wake.wait()
        finally:
            loop.remove_reader(listener)
            self._close()

    def shut(self) -> None:
        """Let ``admit`` look once more and then end."""
        self._last = True
        self._wake.set()

    def _accept(self, listener: socket.socket) -> socket.socket | None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return None
            if self._is_ours(connection):
                connection.setblocking(False)
                return connection
            connection.close()

    def _is_ours(self, connection: socket.socket) -> bool:
        try:
            return read_peer(connection).uid == self._uid
        except DicodeError:
            return False

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._clear()

    def _clear(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
        if self._made_folder:
            with contextlib.suppress(OSError):
                self._path.parent.rmdir()


def _private_folder(folder: Path, uid: int) -> bool:
    """Make the folder unless it is there; tell whether it was made.

    Raises ``PermissionError`` when others could enter or replace the one that is there.
    """
    try:
        folder.mkdir(mode=0o700)
        return True
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
            raise PermissionError(f"{folder} is not a private folder") from None
        return False

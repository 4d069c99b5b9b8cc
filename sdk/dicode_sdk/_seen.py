"""Telling the server what the task uses of what it was granted, so that it can say what it needs.

Only a hint, each thing once and at most two hundred of them: nothing is decided by it. What no
event of Python tells of (native code, the programs it starts) is not in it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_MOST = 200
_LONGEST = 300


class Seen:
    """What was seen so far. ``send`` gives whether it could write a frame now, without waiting."""

    def __init__(self, send: Callable[[list[tuple[str, str]]], bool]) -> None:
        self._send = send
        self._pid = os.getpid()
        self._known: set[tuple[str, str]] = set()
        self._pending: list[tuple[str, str]] = []

    def note(self, kind: str, what: str) -> None:
        """Tell of something, unless it was told before."""
        found = (kind, what)
        if found in self._known or len(self._known) >= _MOST or os.getpid() != self._pid:
            return
        self._known.add(found)
        if len(what) <= _LONGEST and what.isprintable():
            self._pending.append(found)
            if self._send(self._pending):
                self._pending = []

    def rest(self) -> list[tuple[str, str]]:
        """Give what could not be told yet."""
        rest, self._pending = self._pending, []
        return rest


def watch_environment(names: Iterable[str], note: Callable[[str, str], None]) -> None:
    """Tell which of the granted variables are read."""
    granted = {os.fsencode(name): name for name in names}
    if not granted:
        return

    class Variables(dict[bytes, bytes]):
        def __getitem__(self, key: bytes) -> bytes:
            if key in granted:
                note("env", granted[key])
            return super().__getitem__(key)

        def __contains__(self, key: object) -> bool:
            if isinstance(key, bytes) and key in granted:
                note("env", granted[key])
            return super().__contains__(key)

    for environ in (os.environ, os.environb):
        data: Any = getattr(environ, "_data", None)
        if type(data) is not dict:
            return
    # Both are views of the same names, and stay that.
    data = Variables(os.environ._data)  # pyright: ignore
    os.environ._data = os.environb._data = data  # pyright: ignore

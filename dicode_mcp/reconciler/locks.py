"""Reads the locks beside set files, each again only when it has changed. Blocks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.reconciler.pinned import PinnedKeys
from dicode_mcp.reconciler.world import stamp_of
from dicode_mcp.spec.files import read_text
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.lock import (
    LOCK,
    MAX_BYTES,
    LockFile,
    NoLock,
    SetLock,
    Vouched,
    nobodys,
    read_lock,
)
from dicode_mcp.spec.taskset.world import Lock


@dataclass(frozen=True, slots=True)
class _Read:
    stamp: tuple[int, ...] | None
    lock: LockFile | SpecError


class Locks:
    """The locks of this machine's set files; any thread may ask.

    ``memory`` is a file that keeps, over restarts, which entries each lock pinned: an entry whose
    lock is gone for a while does not become the user's own by that.
    """

    def __init__(
        self, clock: Clock, vouched: Vouched = nobodys, memory: Path | None = None
    ) -> None:
        self._clock = clock
        self._vouched = vouched
        self._known: dict[Path, _Read] = {}
        self._memory = PinnedKeys(memory)

    def find(self, file: Path) -> Lock | None:
        """Give what the lock beside a set's file says of it, None when there never was one.

        One that is gone, or cannot be read, still holds what it held.
        """
        path = file.parent / LOCK
        if not os.path.lexists(path):
            self._known.pop(path, None)
            keys = self._memory.of(path, file.name)
            why = f"{path} is gone, so nobody has reviewed this; put it back"
            return NoLock(why, keys) if keys else None
        try:
            lock = self._read(path)
        except SpecError as error:
            return NoLock(str(error.problems[0]))
        self._memory.note(path, lock)
        return SetLock(lock.of(file.name), self._vouched)

    def _read(self, path: Path) -> LockFile:
        stamp = stamp_of(path, self._clock.now_ms() * 1_000_000)
        known = self._known.get(path)
        if known is None or stamp is None or known.stamp != stamp:
            known = self._known[path] = _Read(stamp, _read(path))
        if isinstance(known.lock, SpecError):
            raise known.lock
        return known.lock


def _read(path: Path) -> LockFile | SpecError:
    try:
        return read_lock(read_text(path, str(path), max_bytes=MAX_BYTES), str(path))
    except SpecError as error:
        return error

"""Room on the disk: a ballast file to give away when the disk is full, and what is still allowed.

Log writes stop first, new work second; ending what is under way comes out of the ballast. It knows
nothing of databases. Its methods are called from the store's threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from dicode_mcp.clock import Clock

MIB = 1024 * 1024
_RECHECK_S = 1.0


class Reserve:
    """Owns ``<data>/ballast``. ``size`` 0 means no ballast."""

    def __init__(self, data_dir: Path, clock: Clock, *, size: int, min_free: int) -> None:
        self._dir = data_dir
        self._path = data_dir / "ballast"
        self._clock = clock
        self._size = size
        self._min_free = min_free
        self._lock = threading.Lock()
        self._full = False
        self._checked_at = clock.monotonic()

    @property
    def path(self) -> Path:
        """The ballast file."""
        return self._path

    def prepare(self) -> None:
        """Take the ballast if the disk has room for it to spare."""
        if not self._size:
            self._path.unlink(missing_ok=True)
        elif not self._held() and self._free() >= max(self._min_free, 2 * self._size):
            self._take()

    def release(self) -> bool:
        """Give the ballast up because the disk is full; tells whether that made room."""
        with self._lock:
            if not self._size or not self._path.exists():
                return False
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._full = True
            self._checked_at = self._clock.monotonic()
            return True

    def is_full(self) -> bool:
        """Tell whether only work that must end something may write.

        True from the release of the ballast until the disk has room for it and as much again.
        """
        with self._lock:
            now = self._clock.monotonic()
            if self._full and now - self._checked_at >= _RECHECK_S:
                self._checked_at = now
                if self._free() >= 2 * self._size:
                    self._take()
                    self._full = False
            return self._full

    def logs_allowed(self) -> bool:
        """Tell whether log lines may be written: they stop while some room is left for state."""
        return not self.is_full() and self._free() >= self._size // 4

    def _held(self) -> bool:
        try:
            return self._path.stat().st_size == self._size
        except OSError:
            return False

    def _free(self) -> int:
        try:
            room = os.statvfs(self._dir)
        except OSError:
            return 0
        return room.f_bavail * room.f_frsize

    def _take(self) -> None:
        """Write the ballast with real blocks; leaves none behind when it cannot."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _fill(fd, self._size)
            finally:
                os.close(fd)
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _fill(fd: int, size: int) -> None:
    """Make ``size`` bytes of ``fd`` occupy the disk (macOS has no posix_fallocate)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    block = bytes(MIB)
    for offset in range(0, size, MIB):
        os.write(fd, block[: min(MIB, size - offset)])

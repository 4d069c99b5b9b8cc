"""A folder tree watched by the Linux kernel: which paths changed, batched by how sure it is.

Knows no source and no task. It blocks and belongs to one thread; only ``stop`` may be called from
another. Why not watchfiles here: its loop wakes 200 times a second at a step of 5 ms, which costs
0.7 % of a core while idle and 10 ms of delay; it also follows links out of the tree.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import time
from collections.abc import Callable
from enum import IntFlag
from pathlib import Path

_HEADER = struct.Struct("iIII")
_QUIET_SURE = 0.002
_QUIET_UNSURE = 0.05
"""Seconds without another event before a batch is given. Unsure: a file was opened or written to,
and its writer has not closed it."""
_LONGEST = 0.05


class Mask(IntFlag):
    """Bits of inotify(7)."""

    MODIFY = 0x2
    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x0100_0000
    DONT_FOLLOW = 0x0200_0000
    ISDIR = 0x4000_0000


_WANTED = (
    Mask.MODIFY
    | Mask.ATTRIB
    | Mask.CLOSE_WRITE
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.CREATE
    | Mask.DELETE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ONLYDIR
)
_SURE = Mask.CLOSE_WRITE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE | Mask.ISDIR


class TreeLost(Exception):
    """The root went, was replaced, or events were lost: start over and look at everything."""


class Tree:
    """Watches ``root`` and every folder below it that ``skip(name, folder=True)`` lets through.

    Raises ``OSError`` from the constructor: ENOENT for a missing root, ENOSPC or EMFILE when the
    kernel's limits are reached.
    """

    def __init__(self, root: Path, skip: Callable[[str, bool], bool], *, folders: int) -> None:
        self._root = root
        self._skip = skip
        self._most = folders
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._paths: dict[int, Path] = {}
        self._open: list[int] = []
        self._fd = self._check(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._open.append(self._fd)
        self._bell_read, self._bell_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open += (self._bell_read, self._bell_write)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll.register(self._bell_read, select.POLLIN)
        try:
            # The root itself may be a link: the user named it.
            self._root_wd = self._add(root, Mask(0))
            self._identity = identity(root)
            self._add_below(root)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the kernel's objects; may be called again."""
        while self._open:
            os.close(self._open.pop())

    def __del__(self) -> None:
        # Opening happens in a thread, and whoever asked for it may be cancelled meanwhile.
        self.close()

    def stop(self) -> None:
        """Make ``wait`` return None soon; safe from any thread while the tree is open."""
        os.write(self._bell_write, b".")

    def wait(self, timeout: float) -> frozenset[Path] | None:
        """Give the next batch of changed paths, empty after ``timeout`` seconds; None: stopped.

        Raises ``TreeLost``.
        """
        ready = self._ready(timeout)
        if ready is None:
            return None
        if not ready:
            self._check_identity()
            return frozenset()
        changed: set[Path] = set()
        end = time.monotonic() + _LONGEST
        unsure: set[Path] = set()
        while True:
            self._read(changed, unsure)
            quiet = _QUIET_UNSURE if unsure else _QUIET_SURE
            left = min(quiet, end - time.monotonic())
            if left <= 0:
                return frozenset(changed)
            ready = self._ready(left)
            if ready is None:
                return None
            if not ready:
                return frozenset(changed)

    def _ready(self, timeout: float) -> bool | None:
        fds = {fd for fd, _ in self._poll.poll(max(1.0, timeout * 1000))}
        return None if self._bell_read in fds else bool(fds)

    def _check_identity(self) -> None:
        # A root reached through a link may come to mean another folder without any event.
        if identity(self._root) != self._identity:
            raise TreeLost

    def _read(self, changed: set[Path], unsure: set[Path]) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            wd, bits, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            self._take(wd, Mask(bits), name, changed, unsure)

    def _take(self, wd: int, mask: Mask, name: str, changed: set[Path], unsure: set[Path]) -> None:
        if mask & Mask.Q_OVERFLOW:
            raise TreeLost
        if mask & (Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.IGNORED):
            if wd == self._root_wd:
                raise TreeLost
            if mask & Mask.IGNORED:
                self._paths.pop(wd, None)
            return
        folder = self._paths.get(wd)
        if folder is None or not name or self._skip(name, bool(mask & Mask.ISDIR)):
            return
        path = folder / name
        changed.add(path)
        if mask & _SURE:
            unsure.discard(path)
        else:
            unsure.add(path)
        if mask & Mask.ISDIR:
            self._follow(path, mask)

    def _follow(self, folder: Path, mask: Mask) -> None:
        if mask & Mask.MOVED_FROM:
            self._drop_below(folder)
        elif mask & (Mask.CREATE | Mask.MOVED_TO | Mask.ATTRIB):
            self._add_below(folder, itself=True)

    def _drop_below(self, folder: Path) -> None:
        # A folder that moved away keeps its watches, under a path that is no longer true.
        for wd, path in list(self._paths.items()):
            if path == folder or folder in path.parents:
                del self._paths[wd]
                self._libc.inotify_rm_watch(self._fd, wd)

    def _add_below(self, folder: Path, *, itself: bool = False) -> None:
        # Watch first, list afterwards: what is made in between is seen by one or the other.
        waiting = [folder]
        while waiting:
            current = waiting.pop()
            try:
                if itself or current != folder:
                    self._add(current, Mask.DONT_FOLLOW)
                with os.scandir(current) as entries:
                    waiting.extend(Path(entry.path) for entry in entries if self._wanted(entry))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EMFILE):
                    raise
                # Gone again, or not ours to read: the search of the source says so.

    def _wanted(self, entry: os.DirEntry[str]) -> bool:
        return entry.is_dir(follow_symlinks=False) and not self._skip(entry.name, True)

    def _add(self, folder: Path, extra: Mask) -> int:
        if len(self._paths) >= self._most:
            raise OSError(errno.ENOSPC, f"more than {self._most} folders", str(folder))
        name = os.fsencode(folder)
        wd = self._check(self._libc.inotify_add_watch(self._fd, name, int(_WANTED | extra)))
        self._paths[wd] = folder
        return wd

    @staticmethod
    def _check(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def identity(path: Path) -> tuple[int, int] | None:
    """Tell which folder a path means now, links followed; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

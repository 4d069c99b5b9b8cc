"""Tells whether a task folder may have changed, from the stamps of its files. Blocks."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from dicode_mcp.spec import digest

_RACY_NS = 100_000_000
"""Two writes within one tick of the file system's clock (1 to 10 ms) leave equal stamps."""
_STAMPED = 6
"""Values that stand for one file."""


def fingerprint(folder: Path, now_ns: int) -> int | None:
    """Give a number that stays while no file of a task folder changes; None: cannot be told.

    It is None while a file is so new (``now_ns`` is the wall clock) that another write could
    leave the same stamps, and when something cannot be read.
    """
    stamps: list[object] = []
    try:
        newest = _stamp(str(folder), stamps, 1)
    except OSError:
        return None
    return hash(tuple(stamps)) if newest < now_ns - _RACY_NS else None


def _stamp(folder: str, stamps: list[object], depth: int) -> int:
    """Stamp what the digest covers; raises ``OSError`` where the digest would give up too."""
    if depth > digest.MAX_DEPTH or len(stamps) > _STAMPED * digest.MAX_FILES:
        raise OSError(errno.EFBIG, "too large to be a task", folder)
    newest = 0
    with os.scandir(folder) as entries:
        found = sorted((e for e in entries if not digest.is_ignored(e.name)), key=_name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            stamps.append(entry.name)
            newest = max(newest, _stamp(entry.path, stamps, depth + 1))
        else:
            newest = max(newest, *(_add(entry.name, info, stamps) for info in _infos(entry)))
    return newest


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _add(name: str, info: os.stat_result, stamps: list[object]) -> int:
    stamps += (name, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode)
    return info.st_ctime_ns


def _infos(entry: os.DirEntry[str]) -> list[os.stat_result]:
    """Give the file's own state, and its target's when it is a link: that may change alone."""
    infos = [entry.stat(follow_symlinks=False)]
    if entry.is_symlink():
        try:
            target = entry.stat()
        except OSError:
            return infos
        if stat.S_ISREG(target.st_mode):
            infos.append(target)
    return infos

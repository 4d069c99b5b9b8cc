"""The content hash of a task: every file of its folder, and its resolved manifest (SPEC 1).

Links, dotfiles, ``__pycache__`` and what editors leave behind are not part of a task.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dicode_mcp.clock import Clock
from dicode_mcp.spec.problems import Problem, SpecError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash  # pyright: ignore[reportPrivateUsage]

MAX_FILES = 5_000
MAX_BYTES = 256 * 1024 * 1024
MAX_DEPTH = 32
RECENT_NS = 2 * 10**9
"""A file changed this recently may change again within one tick of the file system's clock."""

_IGNORED_NAMES = frozenset({"__pycache__", "4913"})
_IGNORED_ENDS = ("~", ".swp", ".swo", ".swx", ".tmp")
_CHUNK = 1024 * 1024


class _File(NamedTuple):
    """A file of the folder with what tells that it changed."""

    name: str
    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


Signature = tuple[_File, ...]


class DigestCache:
    """Remembers the hash of folders whose files did not change. Threads may share it."""

    def __init__(self, clock: Clock, size: int = 20_000) -> None:
        self._clock = clock
        self._size = size
        self._known: dict[str, tuple[Signature, Hash]] = {}
        self._lock = threading.Lock()

    def get(self, folder: str, files: Signature) -> Hash | None:
        """Give the folder's hash when its files are as they were."""
        with self._lock:
            known = self._known.get(folder)
            return known[1].copy() if known is not None and known[0] == files else None

    def put(self, folder: str, files: Signature, hashed: Hash) -> None:
        """Remember a hash, unless a file is too fresh for its times to tell of a change."""
        newest = max((max(f.mtime_ns, f.ctime_ns) for f in files), default=0)
        settled = self._clock.now_ms() * 1_000_000 - newest >= RECENT_NS
        with self._lock:
            self._known.pop(folder, None)
            if settled:
                if len(self._known) >= self._size:
                    del self._known[next(iter(self._known))]
                self._known[folder] = (files, hashed.copy())


def folder_digest(folder: Path, spec_json: str, cache: DigestCache | None = None) -> str:
    """Hash a folder and its resolved manifest; gives 64 hex digits.

    Raises ``SpecError`` when the folder is too large to be a task or holds an unreadable file.
    """
    files = tuple(sorted(_walk(folder)))
    key = str(folder)
    hashed = cache.get(key, files) if cache else None
    if hashed is None:
        hashed = _hash_files(files)
        if cache:
            cache.put(key, files, hashed)
    document = spec_json.encode()
    hashed.update(b"spec\0%d\0" % len(document))
    hashed.update(document)
    return hashed.hexdigest()


def is_ignored(name: str) -> bool:
    """Tell whether a file or folder of this name is no part of a task."""
    return name.startswith(".") or name in _IGNORED_NAMES or name.endswith(_IGNORED_ENDS)


def _walk(folder: Path) -> Iterator[_File]:
    pending = [(str(folder), "", 1)]
    count = total = 0
    while pending:
        path, prefix, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise _too_much(f"has folders nested deeper than {MAX_DEPTH}")
        for entry in _entries(path, prefix):
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{name}/", depth + 1))
                continue
            info = _stat(entry)
            if info is None or not stat.S_ISREG(info.st_mode):
                continue
            count, total = count + 1, total + info.st_size
            if count > MAX_FILES:
                raise _too_much(f"has more than {MAX_FILES} files")
            if total > MAX_BYTES:
                raise _too_much(f"is larger than {MAX_BYTES // 1024**2} MiB")
            yield _File(
                name, entry.path, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino
            )


def _entries(path: str, prefix: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return [entry for entry in found if not is_ignored(entry.name)]
    except FileNotFoundError:
        if prefix:
            return []
        raise SpecError([Problem("task.yaml", 0, 0, "", "the task's folder is gone")]) from None
    except OSError as error:
        name = prefix or "the task's folder"
        raise SpecError([Problem(name, 0, 0, "", f"cannot be read: {error.strerror}")]) from None


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _hash_files(files: Signature) -> Hash:
    hashed = hashlib.sha256()
    for file in files:
        try:
            _hash_file(hashed, file)
        except OSError as error:
            raise SpecError(
                [Problem(file.name, 0, 0, "", f"cannot be read: {error.strerror}")]
            ) from None
    return hashed


def _hash_file(hashed: Hash, file: _File) -> None:
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as stream:
        # the length is part of the hash, so what is hashed is what is there now
        size = os.fstat(descriptor).st_size
        hashed.update(b"file\0%s\0%d\0" % (os.fsencode(file.name), size))
        left = size
        while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
            hashed.update(chunk)
            left -= len(chunk)


def _too_much(sentence: str) -> SpecError:
    return SpecError(
        [Problem("task.yaml", 0, 0, "", f"the task's folder {sentence}", "keep data elsewhere")]
    )

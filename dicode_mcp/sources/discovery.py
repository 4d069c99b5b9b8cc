"""Finds the task folders below a source's root and tells whether one may have changed.

Looks at names and file stamps only; what a manifest says is the loader's. Everything here blocks,
so callers run it in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from dicode_mcp.spec import digest
from dicode_mcp.spec.ids import check_task_id

MANIFEST = "task.yaml"

_NEVER_MEANT = ("#*#", "*.sw?", "*.py[co]", "*___jb_???___")
"""What editors and interpreters leave beside the files a person means."""
_RACY_NS = 100_000_000
"""Two writes within one tick of the file system's clock (1 to 10 ms) leave equal stamps."""
_STAMPED = 6
"""Values that stand for one file in a fingerprint."""

Scan = Callable[[Path], list["os.DirEntry[str]"]]


def is_ignored(name: str, *, folder: bool = False) -> bool:
    """Tell whether a change of this file or folder is no reason to look: hidden, editors' own."""
    if digest.is_ignored(name):
        return True
    if folder:
        return name == "node_modules"
    return any(fnmatch(name, pattern) for pattern in _NEVER_MEANT)


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder, sorted by name; raises ``OSError``."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a tree is searched."""

    folders: int = 20_000
    depth: int = 16


@dataclass(frozen=True, slots=True)
class Trouble:
    """A place that could not be searched, what is wrong with it, and what to do."""

    path: Path
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Found:
    """A folder with a manifest. ``trouble`` is set when it cannot be a task as it stands."""

    id: str
    folder: Path
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a search found, sorted by id.

    ``unread`` are folders that could not be searched: nothing is known about what lies below
    them. ``troubles`` has a sentence for each of these and for links that were left alone.
    """

    found: tuple[Found, ...] = ()
    unread: tuple[Path, ...] = ()
    troubles: tuple[Trouble, ...] = ()


def discover(
    root: Path, *, prefix: str = "", limits: Limits | None = None, scan: Scan = scan
) -> Discovery:
    """Search ``root`` for folders with a ``task.yaml``; below such a folder nothing is searched.

    An id is the folder relative to the root, below ``prefix`` when one is given; a root that is
    itself a task is named after its folder. Links to folders are not followed.
    """
    search = _Search(root, prefix, limits or Limits(), scan)
    search.run()
    return Discovery(
        tuple(sorted(search.found, key=lambda found: found.id)),
        tuple(search.unread),
        tuple(search.troubles),
    )


class _Search:
    def __init__(self, root: Path, prefix: str, limits: Limits, scan: Scan) -> None:
        self._root = root
        self._prefix = prefix
        self._limits = limits
        self._scan = scan
        self.found: list[Found] = []
        self.unread: list[Path] = []
        self.troubles: list[Trouble] = []

    def run(self) -> None:
        waiting = [(self._root, 0)]
        for count, (folder, depth) in enumerate(_drain(waiting)):
            if count >= self._limits.folders:
                self._give_up(folder, waiting)
                return
            waiting.extend((child, depth + 1) for child in self._enter(folder, depth))

    def _enter(self, folder: Path, depth: int) -> list[Path]:
        if depth > self._limits.depth:
            self._skip(
                folder,
                f"deeper than {self._limits.depth} folders below the source; not searched",
                "move the tasks up, or name this folder as a source of its own",
            )
            return []
        try:
            entries = self._scan(folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._skip(
                folder, f"cannot be read: {error.strerror}", "give the server's user read access"
            )
            return []
        manifest = next((entry for entry in entries if entry.name == MANIFEST), None)
        if manifest is not None:
            self.found.append(self._found(folder, manifest))
            return []
        return [Path(entry.path) for entry in reversed(entries) if self._searched(entry)]

    def _searched(self, entry: os.DirEntry[str]) -> bool:
        if is_ignored(entry.name, folder=True):
            return False
        if not entry.is_symlink():
            return entry.is_dir(follow_symlinks=False)
        if entry.is_dir():
            self.troubles.append(
                Trouble(
                    Path(entry.path),
                    "is a link to a folder; links are not followed",
                    "move the folder here, or name the link's target as a source",
                )
            )
        return False

    def _found(self, folder: Path, manifest: os.DirEntry[str]) -> Found:
        task_id = task_id_of(folder, self._root, self._prefix)
        return Found(task_id, folder, _trouble(folder, manifest.is_symlink(), task_id, self._root))

    def _skip(self, folder: Path, message: str, hint: str) -> None:
        self.unread.append(folder)
        self.troubles.append(Trouble(folder, message, hint))

    def _give_up(self, folder: Path, waiting: Iterable[tuple[Path, int]]) -> None:
        self.unread.extend([folder, *(path for path, _ in waiting)])
        self.troubles.append(
            Trouble(
                self._root,
                f"has more than {self._limits.folders} folders; the rest was not searched",
                "point the source at the folder that holds the tasks",
            )
        )


def _drain(waiting: list[tuple[Path, int]]) -> Iterator[tuple[Path, int]]:
    while waiting:
        yield waiting.pop()


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def inspect(folder: Path, root: Path, prefix: str = "") -> Found | None:
    """Look at one folder as a search would; None when a search would not find a task there."""
    manifest = folder / MANIFEST
    try:
        is_link = stat.S_ISLNK(manifest.lstat().st_mode)
        if folder != root and folder.resolve() != root.resolve() / folder.relative_to(root):
            return None  # A folder on the way has become a link.
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError):
        is_link = False
    task_id = task_id_of(folder, root, prefix)
    return Found(task_id, folder, _trouble(folder, is_link, task_id, root))


def _trouble(folder: Path, manifest_is_link: bool, task_id: str, root: Path) -> Trouble | None:
    try:
        check_task_id(task_id)
    except ValueError as error:
        return Trouble(folder, f"holds a task, but its id {error}", "rename the folder")
    manifest = folder / MANIFEST
    if manifest_is_link and not _inside(manifest, root):
        return Trouble(
            manifest, "is a link that leaves the source; it is not read", "put a plain file here"
        )
    if not _is_plain(manifest):
        return Trouble(manifest, "is not a file that can be read", "put a plain file here")
    return None


def _is_plain(path: Path) -> bool:
    """Reading a pipe or a device could wait for ever."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # The loader says what is wrong with it.


def task_id_of(folder: Path, root: Path, prefix: str) -> str:
    """Give the id of a task folder below ``root`` (bytes that are no UTF-8 as ``�``)."""
    relative = folder.relative_to(root).as_posix()
    name = root.name if relative == "." else relative
    text = os.fsencode(name).decode("utf-8", "replace")
    return f"{prefix}/{text}" if prefix else text


def fingerprint(folder: Path, now_ns: int) -> int | None:
    """Give a number that stays while no file of a task folder changes; None: cannot be told.

    It is None while a file is so new (``now_ns`` is the wall clock) that another write could
    leave the same stamps, and when something cannot be read.
    """
    stamps: list[object] = []
    try:
        newest = _stamp(folder, stamps, 1)
    except OSError:
        return None
    return hash(tuple(stamps)) if newest < now_ns - _RACY_NS else None


def _stamp(folder: Path, stamps: list[object], depth: int) -> int:
    """Stamp what the digest covers; raises ``OSError`` where the digest would give up too."""
    newest = 0
    if depth > digest.MAX_DEPTH or len(stamps) > _STAMPED * digest.MAX_FILES:
        raise OSError(errno.EFBIG, "too large to be a task", str(folder))
    for entry in scan(folder):
        if digest.is_ignored(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            stamps.append(entry.name)
            newest = max(newest, _stamp(Path(entry.path), stamps, depth + 1))
            continue
        # A link is stamped by its target too, which may change on its own.
        for found in (entry.stat(follow_symlinks=False), _target(entry)):
            if found is not None:
                stamps += (entry.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                stamps += (found.st_ino, found.st_mode)
                newest = max(newest, found.st_ctime_ns)
    return newest


def _target(entry: os.DirEntry[str]) -> os.stat_result | None:
    if not entry.is_symlink():
        return None
    try:
        found = entry.stat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None

"""Finds the task folders below a source's root, and the folders of sets among them.

Looks at names only; what a manifest says is the loader's. Everything here blocks, so callers run
it in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from dicode_mcp.sources.trouble import MANIFEST, Strays, Trouble
from dicode_mcp.spec import digest
from dicode_mcp.spec.ids import check_task_id

SET_FILES = ("taskset.yaml", "taskset.yml")
"""What makes a folder a set's, before any manifest beside it."""

_NEVER_MEANT = ("#*#", "*.sw?", "*.py[co]", "*___jb_???___")
"""What editors and interpreters leave beside the files a person means."""
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
class Found:
    """A folder with a manifest. ``trouble`` is set when it cannot be a task as it stands.

    ``is_set``: it holds a set's file; below it nothing is searched either.
    """

    id: str
    folder: Path
    trouble: Trouble | None = None
    is_set: bool = False


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a search found, sorted by id.

    ``unread`` are folders that could not be searched: nothing is known about what lies below
    them. ``troubles`` has a sentence for each of these, for links that were left alone and for
    files that look like manifests and are none.
    """

    found: tuple[Found, ...] = ()
    unread: tuple[Path, ...] = ()
    troubles: tuple[Trouble, ...] = ()


def discover(
    root: Path, *, prefix: str = "", limits: Limits | None = None, scan: Scan = scan
) -> Discovery:
    """Search ``root`` for folders with a ``task.yaml``, at any depth, also inside of each other.

    A folder with a set's file is the set's: below it nothing is searched.

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


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder to search."""

    folder: Path
    depth: int = 0
    inside_a_task: bool = False


class _Search:
    def __init__(self, root: Path, prefix: str, limits: Limits, scan: Scan) -> None:
        self._root = root
        self._prefix = prefix
        self._limits = limits
        self._scan = scan
        self._strays = Strays()
        self.found: list[Found] = []
        self.unread: list[Path] = []
        self.troubles: list[Trouble] = []

    def run(self) -> None:
        waiting = [_Place(self._root)]
        for count, place in enumerate(_drain(waiting)):
            if count >= self._limits.folders:
                self._give_up(place.folder, waiting)
                return
            waiting.extend(self._enter(place))

    def _enter(self, place: _Place) -> list[_Place]:
        folder = place.folder
        if place.depth > self._limits.depth:
            self._skip(
                folder,
                f"deeper than {self._limits.depth} folders below the source; not searched",
                "move the tasks up, or name this folder as a source of its own",
            )
            return []
        try:
            entries = self._scan(folder)
        except OSError as error:
            if place.depth and isinstance(error, FileNotFoundError):
                return []
            self._skip(
                folder, f"cannot be read: {error.strerror}", "give the server's user read access"
            )
            return []
        if place.depth and any(entry.name in SET_FILES for entry in entries):
            task_id = task_id_of(folder, self._root, self._prefix)
            trouble = _id_trouble(folder, task_id)
            self.found.append(Found(task_id, folder, trouble, is_set=True))
            return []
        manifest = next((entry for entry in entries if entry.name == MANIFEST), None)
        if manifest is not None:
            self.found.append(self._found(folder, manifest))
        inside = place.inside_a_task or manifest is not None
        self.troubles += self._strays.among(entries, inside_a_task=inside)
        return [
            _Place(Path(entry.path), place.depth + 1, inside)
            for entry in reversed(entries)
            if self._searched(entry, inside)
        ]

    def _searched(self, entry: os.DirEntry[str], inside_a_task: bool) -> bool:
        if is_ignored(entry.name, folder=True):
            return False
        if not entry.is_symlink():
            return entry.is_dir(follow_symlinks=False)
        # A task's own links are its own business.
        if not inside_a_task and entry.is_dir():
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
        plain = manifest.is_file(follow_symlinks=False)
        return Found(task_id, folder, _trouble(folder, plain, task_id, self._root))

    def _skip(self, folder: Path, message: str, hint: str) -> None:
        self.unread.append(folder)
        self.troubles.append(Trouble(folder, message, hint))

    def _give_up(self, folder: Path, waiting: Iterable[_Place]) -> None:
        self.unread.extend([folder, *(place.folder for place in waiting)])
        self.troubles.append(
            Trouble(
                self._root,
                f"has more than {self._limits.folders} folders; the rest was not searched",
                "point the source at the folder that holds the tasks",
            )
        )


def _drain(waiting: list[_Place]) -> Iterator[_Place]:
    while waiting:
        yield waiting.pop()


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def inspect(folder: Path, root: Path, prefix: str = "") -> Found | None:
    """Look at one folder as a search would; None when a search would not find a task there."""
    plain = True
    try:
        plain = stat.S_ISREG((folder / MANIFEST).lstat().st_mode)
        if folder != root and folder.resolve() != root.resolve() / folder.relative_to(root):
            return None  # A folder on the way has become a link.
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError):
        pass  # It is there and cannot be read: the loader says so.
    task_id = task_id_of(folder, root, prefix)
    return Found(task_id, folder, _trouble(folder, plain, task_id, root))


def _id_trouble(folder: Path, task_id: str) -> Trouble | None:
    try:
        check_task_id(task_id)
    except ValueError as error:
        return Trouble(folder, f"holds a task, but its id {error}", "rename the folder")
    return None


def _trouble(folder: Path, plain: bool, task_id: str, root: Path) -> Trouble | None:
    found = _id_trouble(folder, task_id)
    return found if found or plain else _odd_manifest(folder / MANIFEST, root)


def _odd_manifest(manifest: Path, root: Path) -> Trouble | None:
    """Judge a manifest that is a link, a folder, or something whose reading could never end."""
    if manifest.is_symlink() and not _inside(manifest, root):
        return Trouble(
            manifest, "is a link that leaves the source; it is not read", "put a plain file here"
        )
    if manifest.exists() and not manifest.is_file():
        return Trouble(manifest, "is not a file that can be read", "put a plain file here")
    return None


def task_id_of(folder: Path, root: Path, prefix: str) -> str:
    """Give the id of a task folder below ``root`` (bytes that are no UTF-8 as ``�``)."""
    # By text, since a search of thousands of folders spends most of its time on paths.
    name = str(folder)[len(str(root)) :].lstrip("/") or root.name
    text = os.fsencode(name).decode("utf-8", "replace")
    return f"{prefix}/{text}" if prefix else text

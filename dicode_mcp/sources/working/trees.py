"""A task's folder as git trees: what of it belongs in a commit, and the tree that results.

Reads plain files only and writes objects; branches and remotes are others' business.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dulwich.index import commit_tree
from dulwich.object_store import BaseObjectStore
from dulwich.objects import S_ISGITLINK, Blob, ObjectID, Tree

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.sources.working.faults import conflict
from dicode_mcp.sources.working.model import FileChange
from dicode_mcp.spec.digest import is_ignored

MAX_FILES = 5_000
MAX_FILE_BYTES = 32 * 2**20
MAX_BYTES = 256 * 2**20
MAX_DEPTH = 32
_SHOWN = 50
_COMPARED_BYTES = 1024 * 1024

Entries = dict[bytes, tuple[int, ObjectID]]
"""Mode and object by path below the task's folder."""


@dataclass(frozen=True, slots=True)
class Found:
    """The plain files of a folder: their content, and whether they may be executed."""

    files: Mapping[bytes, tuple[bool, bytes]]
    skipped: tuple[str, ...]


def read_folder(folder: Path, tracked: Entries, ignored: Callable[[str], bool]) -> Found:
    """Read what belongs in a commit; ``ignored`` gets paths below the folder (``x/`` a folder's).

    What is tracked already belongs in it, whatever its name. Raises TOO_LARGE.
    """
    reader = _Reader(folder, tracked, ignored)
    reader.read(b"", 1)
    return Found(reader.files, tuple(reader.skipped))


class _Reader:
    def __init__(self, folder: Path, tracked: Entries, ignored: Callable[[str], bool]) -> None:
        self._folder = os.fsencode(folder)
        self._tracked = tracked
        self._ignored = ignored
        self._bytes = 0
        self.files: dict[bytes, tuple[bool, bytes]] = {}
        self.skipped: list[str] = []

    def read(self, below: bytes, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _too_large(f"has folders nested deeper than {MAX_DEPTH}")
        with os.scandir(os.path.join(self._folder, below)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                self._enter(path, depth)
            elif self._belongs(path) and entry.is_file(follow_symlinks=False):
                self._take(path)
            else:
                self._skip(path)

    def _enter(self, path: bytes, depth: int) -> None:
        mode = self._tracked.get(path, (0, None))[0]
        if S_ISGITLINK(mode):
            return
        if self._holds_tracked(path) or self._belongs(path, folder=True):
            self.read(path + b"/", depth + 1)
        else:
            self._skip(path + b"/")

    def _holds_tracked(self, path: bytes) -> bool:
        return any(known.startswith(path + b"/") for known in self._tracked)

    def _belongs(self, path: bytes, *, folder: bool = False) -> bool:
        if path in self._tracked:
            return not stat.S_ISLNK(self._tracked[path][0])
        name = os.fsdecode(path)
        if any(is_ignored(part) for part in name.split("/")):
            return False
        return not self._ignored(f"{name}/" if folder else name)

    def _take(self, path: bytes) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(os.path.join(self._folder, path), flags), "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
            executable = bool(os.fstat(file.fileno()).st_mode & 0o100)
        self._bytes += len(data)
        if len(data) > MAX_FILE_BYTES:
            shown = os.fsdecode(path)
            raise _too_large(f"holds {shown}, which is larger than {MAX_FILE_BYTES // 2**20} MiB")
        if self._bytes > MAX_BYTES:
            raise _too_large(f"is larger than {MAX_BYTES // 2**20} MiB")
        self.files[path] = (executable, data)
        if len(self.files) > MAX_FILES:
            raise _too_large(f"has more than {MAX_FILES} files")

    def _skip(self, path: bytes) -> None:
        name = path.rstrip(b"/").rpartition(b"/")[2]
        if name not in (b".git", b"__pycache__") and path not in self._tracked:
            if len(self.skipped) < _SHOWN:
                self.skipped.append(path.decode("utf-8", "replace"))


def entries_below(store: BaseObjectStore, tree: ObjectID | None) -> Entries:
    """Give the files, links and submodules of a tree by path."""
    if tree is None:
        return {}
    return {entry.path: (entry.mode, entry.sha) for entry in store.iter_tree_contents(tree)}


def new_entries(
    store: BaseObjectStore, found: Found, old: Entries, *, modes: bool = True
) -> Entries:
    """Write the files as blobs; links and submodules stay as they are.

    Without ``modes`` (``core.filemode`` is off) what is there keeps its executable bit.
    """
    kept = {
        path: entry
        for path, entry in old.items()
        if stat.S_ISLNK(entry[0]) or S_ISGITLINK(entry[0])
    }
    for path, (executable, data) in found.files.items():
        blob = Blob.from_string(data)
        store.add_object(blob)
        mode = 0o100755 if executable else 0o100644
        if not modes and path in old:
            mode = old[path][0]
        kept[path] = (mode, blob.id)
    return kept


def put_folder(
    store: BaseObjectStore, root: ObjectID | None, parts: list[bytes], entries: Entries
) -> ObjectID:
    """Give the root tree with the folder at ``parts`` replaced by ``entries``."""
    blobs = [(path, sha, mode) for path, (mode, sha) in entries.items()]
    made = commit_tree(store, blobs) if entries else None
    return _put(store, root, parts, made) or _store(store, Tree())


def _put(
    store: BaseObjectStore, root: ObjectID | None, parts: list[bytes], made: ObjectID | None
) -> ObjectID | None:
    """Give the tree with ``made`` at ``parts``; None when nothing is left in it."""
    if not parts:
        return made
    tree = Tree()
    for name, mode, sha in _tree(store, root).items() if root is not None else ():
        tree.add(name, mode, sha)
    name, rest = parts[0], parts[1:]
    child = _put(store, subtree(store, root, [name]) if rest else None, rest, made)
    if child is not None:
        tree[name] = (stat.S_IFDIR, child)
    elif name in tree:
        del tree[name]
    return _store(store, tree) if len(tree) else None


def _store(store: BaseObjectStore, tree: Tree) -> ObjectID:
    store.add_object(tree)
    return tree.id


def subtree(store: BaseObjectStore, root: ObjectID | None, parts: list[bytes]) -> ObjectID | None:
    """Give the tree at ``parts`` below a root, None when there is none."""
    here = root
    for part in parts:
        if here is None:
            return None
        tree = _tree(store, here)
        if part not in tree:
            return None
        mode, here = tree[part]
        if not stat.S_ISDIR(mode):
            raise conflict(
                "in the repository a file, link or submodule stands where the task's folder is",
                "commit this change with git itself",
            )
    return here


def _tree(store: BaseObjectStore, tree: ObjectID) -> Tree:
    found = store[tree]
    if not isinstance(found, Tree):
        raise KeyError(tree)
    return found


def changes(store: BaseObjectStore, old: Entries, new: Entries) -> tuple[FileChange, ...]:
    """Say what differs, by path."""
    out: list[FileChange] = []
    for path in sorted({*old, *new}):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        kind = "added" if before is None else "deleted" if after is None else "modified"
        added, removed = _lines(_data(store, before), _data(store, after))
        out.append(FileChange(path.decode("utf-8", "replace"), kind, added, removed))
    return tuple(out)


def _data(store: BaseObjectStore, entry: tuple[int, ObjectID] | None) -> bytes:
    if entry is None or S_ISGITLINK(entry[0]):
        return b""
    found = store[entry[1]]
    return found.data if isinstance(found, Blob) else b""


def _lines(before: bytes, after: bytes) -> tuple[int | None, int | None]:
    if b"\0" in before + after or len(before) + len(after) > _COMPARED_BYTES:
        return None, None
    diff = list(difflib.unified_diff(_split(before), _split(after), n=0))[2:]
    return sum(line[:1] == "+" for line in diff), sum(line[:1] == "-" for line in diff)


def _split(data: bytes) -> list[str]:
    return (
        data.decode("latin-1").split("\n")[: -1 if data.endswith(b"\n") else None] if data else []
    )


def _too_large(what: str) -> DicodeError:
    return DicodeError(
        Code.TOO_LARGE, f"the task's folder {what}", hint="keep data elsewhere, or ignore it"
    )

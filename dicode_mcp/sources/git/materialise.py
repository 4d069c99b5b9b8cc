"""Writes the tree of a commit as plain files into a folder that then never changes.

Part of the worker. No links, submodules, hooks or filters. Folders that an older checkout has are
shared with it, file by file.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from pathlib import Path

from dulwich.objects import ObjectID

from dicode_mcp.sources.git.failures import GitError, Reason
from dicode_mcp.sources.git.index import Facts, Index, read_index, write_index
from dicode_mcp.sources.git.jobs import Bounds
from dicode_mcp.sources.git.names import shown
from dicode_mcp.sources.git.removal import UNFINISHED, remove
from dicode_mcp.sources.git.trees import BLOB, Entry, Objects, Trees

_MOST_SKIPPED = 1000


def write_tree(
    objects: Objects, tree: str, checkouts: Path, bounds: Bounds, base: Path | None
) -> Index:
    """Make ``checkouts/<tree>``, unless it is there; ``base`` is an older one to share with.

    Raises ``GitError``; ``KeyError`` for an object that is not there; ``OSError``.
    """
    goal = checkouts / tree
    there = read_index(goal) if goal.is_dir() else None
    if there is not None:
        return there
    new = checkouts / f"{UNFINISHED}{tree}-{os.getpid()}"
    old = (base, read_index(base)) if base else None
    writer = _Writer(objects, bounds, *(old if old and old[1] else (None, None)))
    try:
        index = writer.write(tree, new)
        write_index(goal, index)
        if goal.exists():
            remove(goal)
        os.rename(new, goal)
    except BaseException:
        remove(new)
        raise
    return index


class _Writer:
    """One writing of one tree."""

    def __init__(
        self, objects: Objects, bounds: Bounds, base: Path | None, known: Index | None
    ) -> None:
        self._objects = objects
        self._bounds = bounds
        self._base = base
        self._known = known or Index()
        self._places = {tree: path for path, tree in self._known.trees.items()}
        self._children = _children(self._known)
        self._trees = Trees(objects, bounds, self._known.facts)
        self._copies: dict[tuple[str, bool], str] = {}
        self._bytes = 0
        self._index_trees: dict[str, str] = {}
        self._index_facts: dict[str, Facts] = {}
        self._index_skipped: dict[str, str] = {}

    def write(self, tree: str, folder: Path) -> Index:
        # All of it is judged before anything is written.
        self._trees.judge(tree)
        self._fill(tree, "", str(folder))
        return Index(self._index_trees, self._index_facts, self._index_skipped)

    def _fill(self, tree: str, path: str, place: str) -> None:
        """Make a folder from its tree, or from the base, which has that tree somewhere."""
        old = self._places.get(tree)
        if self._base is not None and old is not None:
            self._note_shared(old, path)
            self._add(self._known.facts[tree].bytes)
            _share(os.path.join(self._base, old), place)
            return
        before = self._bytes
        found = self._trees[tree]
        os.mkdir(place, 0o700)
        self._index_trees[path] = tree
        for name, why in found.skipped:
            self._skip(_join(path, name), why)
        for entry in found.entries:
            below, there = _join(path, entry.name), f"{place}/{entry.name}"
            if entry.folder:
                self._fill(entry.sha, below, there)
            else:
                self._file(entry, below, there)
        os.chmod(place, 0o555)
        size = self._bytes - before
        self._index_facts[tree] = Facts(found.files, found.folders, found.depth, size)

    def _file(self, entry: Entry, path: str, place: str) -> None:
        key = (entry.sha, entry.executable)
        twin = self._copies.get(key)
        if twin is not None and _linked(twin, place):
            self._add(os.stat(place).st_size)
            return
        kind, data = self._objects.get_raw(ObjectID(entry.sha.encode()))
        if kind != BLOB:
            raise GitError(Reason.HOSTILE, "the repository calls something a file that is none")
        if len(data) > self._bounds.max_file_size:
            raise GitError(
                Reason.TOO_LARGE,
                f"the file {shown(path.encode())} is larger than"
                f" {self._bounds.max_file_size} bytes",
                "remove it, or raise max_file_size of the source",
            )
        self._add(len(data))
        mode = 0o555 if entry.executable else 0o444
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(fd, "wb") as file:
            file.write(data)
        self._copies[key] = place

    def _add(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._bounds.max_total_size:
            raise GitError(
                Reason.TOO_LARGE,
                f"the repository's files are larger than {self._bounds.max_total_size} bytes",
                "if that is right for this repository, raise max_total_size of its source",
            )

    def _skip(self, path: str, why: str) -> None:
        if len(self._index_skipped) < _MOST_SKIPPED:
            self._index_skipped[path] = why

    def _note_shared(self, old: str, path: str) -> None:
        """Take over what is known of a folder of the base and of all below it."""
        waiting = [old]
        while waiting:
            known = waiting.pop()
            tree = self._known.trees[known]
            self._index_trees[_join(path, known[len(old) :].lstrip("/"))] = tree
            self._index_facts[tree] = self._known.facts[tree]
            waiting += self._children.get(known, ())
        inside = f"{old}/" if old else ""
        for skipped, why in self._known.skipped.items():
            if skipped.startswith(inside):
                self._skip(_join(path, skipped[len(inside) :]), why)


def _children(index: Index) -> dict[str, list[str]]:
    out: dict[str, list[str]] = defaultdict(list)
    for path in index.trees:
        if path:
            out[path.rpartition("/")[0]].append(path)
    return out


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path and name else path or name


def _linked(existing: str, place: str) -> bool:
    """Give a file a second name; False where the file system has no more of them."""
    try:
        os.link(existing, place, follow_symlinks=False)
    except OSError:
        return False
    return True


def _share(old: str, new: str) -> None:
    """Make a folder whose files are those of an older one."""
    os.mkdir(new, 0o700)
    with os.scandir(old) as entries:
        for entry in entries:
            place = f"{new}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                _share(entry.path, place)
            elif not _linked(entry.path, place):
                shutil.copy2(entry.path, place, follow_symlinks=False)
    os.chmod(new, 0o555)

"""Reads and judges the trees of a commit before a byte of it is written. Part of the worker."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dulwich.objects import ObjectID, parse_tree

from dicode_mcp.sources.git.failures import GitError, Reason
from dicode_mcp.sources.git.index import Facts
from dicode_mcp.sources.git.jobs import Bounds
from dicode_mcp.sources.git.names import Verdict, judge, shown

TREE, BLOB = 2, 3
_SUBMODULE = 0o160000


class Objects(Protocol):
    """Where objects are read."""

    def get_raw(self, name: ObjectID, /) -> tuple[int, bytes]:
        """Give type and content; raises ``KeyError``."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder that is to be written."""

    name: str
    sha: str
    folder: bool
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """One tree. ``files``, ``folders`` and ``depth`` count all below, and itself."""

    entries: tuple[Entry, ...]
    skipped: tuple[tuple[str, str], ...]
    """Names that are left out, and why."""
    files: int
    folders: int
    depth: int


class Trees:
    """The trees of one commit, each distinct one read once.

    A tree may stand in a thousand places, so a few objects can mean a million files: what counts
    is what would be written.
    """

    def __init__(self, objects: Objects, bounds: Bounds, known: Mapping[str, Facts]) -> None:
        self._objects = objects
        self._bounds = bounds
        self._known = known
        self._read: dict[str, Folder] = {}

    def __getitem__(self, tree: str) -> Folder:
        """Give a tree that was judged, and is not known from an earlier commit."""
        return self._read[tree]

    def judge(self, tree: str, level: int = 1) -> Facts | Folder:
        """Read a tree and all below it, at ``level`` below the root. Raises ``GitError``."""
        found = self._read.get(tree) or self._known.get(tree)
        if found is None:
            if level > self._bounds.max_depth:
                raise self._too_deep()
            found = self._below(*self._parse(tree), level)
            self._read[tree] = found
        if level + found.depth - 1 > self._bounds.max_depth:
            raise self._too_deep()
        if found.files + found.folders > self._bounds.max_files:
            raise self._too_many()
        return found

    def _below(
        self, entries: tuple[Entry, ...], skipped: tuple[tuple[str, str], ...], level: int
    ) -> Folder:
        files = sum(1 for entry in entries if not entry.folder)
        folders = depth = 1
        for entry in entries:
            if entry.folder:
                below = self.judge(entry.sha, level + 1)
                files += below.files
                folders += below.folders
                depth = max(depth, below.depth + 1)
            if files + folders > self._bounds.max_files:
                raise self._too_many()
        return Folder(entries, skipped, files, folders, depth)

    def _parse(self, tree: str) -> tuple[tuple[Entry, ...], tuple[tuple[str, str], ...]]:
        kind, text = self._objects.get_raw(ObjectID(tree.encode()))
        if kind != TREE:
            raise GitError(Reason.HOSTILE, "the repository calls something a folder that is none")
        entries: dict[str, Entry] = {}
        skipped: list[tuple[str, str]] = []
        try:
            for raw, mode, sha in parse_tree(text, 20):
                why = _left_out(raw, mode)
                if why:
                    skipped.append((shown(raw), why))
                    continue
                name = raw.decode()
                if name in entries:
                    raise GitError(
                        Reason.HOSTILE, f"the name {shown(raw)!r} stands twice in a folder"
                    )
                folder = stat.S_ISDIR(mode)
                runs = not folder and bool(mode & 0o100)
                entries[name] = Entry(name, bytes(sha).decode(), folder, runs)
        except (ValueError, IndexError) as error:
            raise GitError(
                Reason.HOSTILE, "the repository holds a folder that is malformed"
            ) from error
        return tuple(entries.values()), tuple(skipped)

    def _too_many(self) -> GitError:
        return GitError(
            Reason.TOO_LARGE,
            f"the repository holds more than {self._bounds.max_files} files and folders",
            "if that is right for this repository, raise max_files of its source",
        )

    def _too_deep(self) -> GitError:
        return GitError(
            Reason.TOO_LARGE,
            f"the repository holds folders deeper than {self._bounds.max_depth}",
            "move what lies deeper up",
        )


def _left_out(name: bytes, mode: int) -> str:
    """Say why an entry is not written; empty when it is. Raises ``GitError`` for hostile names."""
    verdict = judge(name)
    if verdict is Verdict.HOSTILE:
        raise GitError(
            Reason.HOSTILE,
            f"the repository holds the name {shown(name)!r}, which git itself never writes",
            "do not use this repository before its owner has removed that entry",
        )
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_IFMT(mode) == _SUBMODULE:
        return "a submodule"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "no plain file"
    if name == b"__pycache__" or name.endswith((b".pyc", b".pyo")):
        # Python would run it in place of the source that a human has read.
        return "compiled Python"
    return "a name with characters that mislead" if verdict is Verdict.ODD else ""

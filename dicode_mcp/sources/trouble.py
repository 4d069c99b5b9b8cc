"""Places of a source that are not read, and files that look as if they were meant to be.

Knows names and the first lines of a file; what to do with a trouble is the search's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "task.yaml"
_TASK_NAMES = frozenset({"task.yaml", "task.yml"})
_SET_NAMES = frozenset({"taskset.yaml", "taskset.yml"})
_TASK_SET = re.compile(rb"^kind:[ \t]*[\"']?TaskSet\b", re.MULTILINE)
_HEAD = 4096
_MOST_READ = 200
"""How many files a search opens to see whether they are TaskSets."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A place that could not be searched, what is wrong with it, and what to do."""

    path: Path
    message: str
    hint: str


def may_be_meant(name: str) -> bool:
    """Tell whether a file of this name can make or end a trouble, or a task."""
    return name.lower() in _TASK_NAMES or name.endswith((".yaml", ".yml"))


class Strays:
    """The files of one search that are no manifests and look as if they were meant as such."""

    def __init__(self) -> None:
        self._read = 0

    def among(self, entries: Sequence[os.DirEntry[str]], *, inside_a_task: bool) -> list[Trouble]:
        """Judge the files of one folder. Inside a task other files are the task's own data."""
        names = {entry.name for entry in entries}
        troubles = [_judge(entry, names) for entry in entries]
        if not inside_a_task:
            troubles += [self._set(entry) for entry in entries]
        return [trouble for trouble in troubles if trouble is not None]

    def _set(self, entry: os.DirEntry[str]) -> Trouble | None:
        lower = entry.name.lower()
        if lower in _TASK_NAMES or not lower.endswith((".yaml", ".yml")):
            return None
        if not entry.is_file(follow_symlinks=False):
            return None
        if lower not in _SET_NAMES:
            if self._read >= _MOST_READ:
                return None
            self._read += 1
            if not _TASK_SET.search(_head(entry.path)):
                return None
        return Trouble(
            Path(entry.path),
            "is a TaskSet, and not read: a search finds sets by the name taskset.yaml",
            "name it taskset.yaml, in a folder of its own, or make it the path of a source",
        )


def _judge(entry: os.DirEntry[str], names: set[str]) -> Trouble | None:
    if entry.name == MANIFEST or entry.name.lower() not in _TASK_NAMES or entry.is_dir():
        return None
    if MANIFEST in names:
        what, todo = f"is not read; the {MANIFEST} beside it is", "keep one of the two"
    else:
        what, todo = f"is not read; a task's manifest is named {MANIFEST}", f"name it {MANIFEST}"
    return Trouble(Path(entry.path), what, todo)


def _head(path: str) -> bytes:
    try:
        # A file may become a pipe after it was judged.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _HEAD)
    except OSError:
        return b""
    finally:
        os.close(descriptor)

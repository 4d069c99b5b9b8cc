"""Decides how much of a source must be looked at after some of its files changed.

Reads nothing but what kind of thing a changed path is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.reconciler.declare import Declaration
from dicode_mcp.sources.trouble import MANIFEST, may_be_meant

Folders = Mapping[Path, Sequence[str]]
"""Folders that were read, with the ids of their tasks."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What must be looked at: the folders of some tasks, and whether the sets too."""

    ids: frozenset[str]
    sets: bool = False


def reach_of(
    paths: Iterable[Path], declaration: Declaration, folders: Folders, doubts: Iterable[str]
) -> Reach | None:
    """Give what changed ``paths``, and tasks in doubt, concern; None: only a search can tell.

    A task is concerned by what changes in the tasks inside its folder too.
    """
    ids: set[str] = set()
    sets = False
    for path in paths:
        if path in declaration.resolution.files:
            sets = True
            continue
        around = [p for p in (path, *path.parents) if p in folders]
        if not around or _may_bring_tasks(path, folders):
            return None
        inside = [] if path.exists() else _below(path, folders)
        ids.update(task_id for folder in (*around, *inside) for task_id in folders[folder])
    read = {task_id for known in folders.values() for task_id in known}
    for task_id in doubts:
        if task_id in declaration.held or task_id in declaration.lost:
            sets = True
        elif task_id in read:
            ids.add(task_id)
        else:
            # A manifest that is gone may uncover tasks below it: that takes a search.
            return None
    return Reach(frozenset(ids), sets)


def _may_bring_tasks(path: Path, folders: Folders) -> bool:
    """Tell whether a changed path may hold tasks, or troubles, that are not known yet."""
    if path.is_dir():
        return True
    return may_be_meant(path.name) and not (path.name == MANIFEST and path.parent in folders)


def _below(path: Path, folders: Folders) -> list[Path]:
    """Give the task folders inside a folder that went."""
    below = f"{path}/"
    return [folder for folder in folders if str(folder).startswith(below)]

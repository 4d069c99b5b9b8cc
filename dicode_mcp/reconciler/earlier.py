"""Finds the version of a task that was approved, when the one that is declared now must wait.

Only for tasks from git, whose older checkouts are kept; what is found is what was approved, or
nothing. Blocks; belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Approval
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.taskset.resolution import Declared

Approved = Callable[[str], Sequence[Approval]]
"""Gives the approvals of a task, newest first."""
Beside = Callable[[Path, str], Path | None]
"""Gives, of the repository whose checkout is given, that of another commit, if it is there."""


class Earlier:
    """Remembers what it found, so that nothing is read again while nothing changes."""

    def __init__(self, approved: Approved, beside: Beside) -> None:
        self._approved = approved
        self._beside = beside
        self._read: dict[tuple[str, str], tuple[Declared, Task | None]] = {}
        """By id and approved hash: the declaration that was read, and what it gave."""

    def version(
        self, declared: Declared, digest: str, load: Callable[[Declared], Task]
    ) -> Task | None:
        """Give an approved version that can be read as it was approved.

        The one with the hash ``digest`` goes before all others, then the newest.
        """
        for approval in sorted(self._approved(declared.id), key=lambda a: a.digest != digest):
            earlier = self._at(declared, approval.revision)
            task = self._version(earlier, approval.digest, load) if earlier else None
            if task is not None:
                return task
        return None

    def _version(
        self, earlier: Declared, digest: str, load: Callable[[Declared], Task]
    ) -> Task | None:
        # A checkout never changes: at the next commit the same is approved, and need not be read.
        known = self._read.get((earlier.id, digest))
        if known is None or known[0] != earlier:
            known = (earlier, _loaded(earlier, digest, load))
            self._read[(earlier.id, digest)] = known
        return known[1]

    def _at(self, declared: Declared, revision: str | None) -> Declared | None:
        tree = declared.tree
        if revision is None or tree.revision is None:
            return None
        root = self._beside(tree.root, revision)
        if root is None:
            return None

        def moved(path: Path) -> Path:
            return root / path.relative_to(tree.root) if path.is_relative_to(tree.root) else path

        return replace(
            declared,
            folder=moved(declared.folder),
            set_dir=moved(declared.set_dir) if declared.set_dir else None,
            tree=replace(tree, root=root, revision=revision, trees=None),
        )


def _loaded(earlier: Declared, digest: str, load: Callable[[Declared], Task]) -> Task | None:
    try:
        task = load(earlier)
    except (DicodeError, OSError):
        return None
    return task if task.digest == digest else None


def nothing_beside(root: Path, commit: str) -> Path | None:
    """Find no other checkout."""
    return None

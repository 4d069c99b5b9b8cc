"""Tells whether an approved version in a folder of this machine is still what was approved.

Such a folder can be written over while its version is in force, and much of a task is read from
it when it runs. Blocks; belongs to one thread.
"""

from __future__ import annotations

from dicode_mcp.errors import DicodeError
from dicode_mcp.sources.task_files import list_files
from dicode_mcp.sources.trouble import MANIFEST
from dicode_mcp.spec.digest import folder_digest
from dicode_mcp.spec.model import Task

_RUNS_FROM_MEMORY = frozenset({"python"})
"""The runtimes that run the script's text as it was read, not its file."""


class Guarded:
    """Remembers the versions that an approval let in, with what their folders held then."""

    def __init__(self) -> None:
        self._let_in: dict[str, tuple[Task, str]] = {}

    def note(self, task: Task) -> None:
        """Take note of a version that is let in. What is from git never changes."""
        known = self._let_in.get(task.id)
        if task.revision is not None:
            self._let_in.pop(task.id, None)
        elif known is None or known[0] is not task:
            self._let_in[task.id] = task, _content(task)

    def lasts(self, task_id: str) -> bool:
        """Tell whether the version let in last may go on although another one is written now."""
        known = self._let_in.get(task_id)
        if known is None:
            return True
        task, content = known
        return _is_in_memory(task) or (content != "" and _content(task) == content)


def _content(task: Task) -> str:
    """Give what the folder holds, as a hash; empty when it cannot be read."""
    try:
        return folder_digest(task.folder, "")
    except (DicodeError, OSError):
        return ""


def _is_in_memory(task: Task) -> bool:
    """Tell whether nothing but the text in memory can run: no other file lies beside the script."""
    if task.spec.runtime not in _RUNS_FROM_MEMORY or task.code is None or task.script is None:
        return False
    files, more = list_files(task.folder)
    return not more and {path for path, _ in files} <= {MANIFEST, task.script.name}

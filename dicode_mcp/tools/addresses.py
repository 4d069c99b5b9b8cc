"""Addresses of resources: tasks and their files, runs and their logs, the sources.

Pure. Ids are percent-encoded in the canonical form; an unencoded ``/`` in a task id is read too
(in an id that ends with ``/pending`` it has to be encoded).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

SCHEME = "dicode://"
Kind = Literal["task", "file", "pending", "run", "logs", "sources"]

TOOLSET: dict[Kind, str] = {
    "task": "tasks",
    "file": "authoring",
    "pending": "tasks",
    "run": "runs",
    "logs": "runs",
    "sources": "sources",
}
VERB: dict[Kind, str] = {
    "task": "read",
    "file": "author",
    "pending": "read",
    "run": "read",
    "logs": "read",
    "sources": "read",
}


@dataclass(frozen=True, slots=True)
class Address:
    """What a URI names. ``id`` is empty for the sources; ``path`` is a file's below its task."""

    kind: Kind
    id: str = ""
    path: str = ""

    @property
    def uri(self) -> str:
        """The canonical URI."""
        encoded = quote(self.id, safe="")
        match self.kind:
            case "task":
                return f"{SCHEME}tasks/{encoded}"
            case "file":
                return f"{SCHEME}tasks/{encoded}/files/{quote(self.path)}"
            case "pending":
                return f"{SCHEME}tasks/{encoded}/pending"
            case "run":
                return f"{SCHEME}runs/{encoded}"
            case "logs":
                return f"{SCHEME}runs/{encoded}/logs"
            case "sources":
                return f"{SCHEME}sources"

    @property
    def changes_with(self) -> Address:
        """The address whose changes are this one's: what is of a task changes with it."""
        return Address("task", self.id) if self.kind in ("file", "pending") else self


def parse_address(uri: str) -> Address | None:
    """Read a URI; None when it names nothing of ours."""
    if not uri.startswith(SCHEME):
        return None
    kind, _, rest = uri.removeprefix(SCHEME).partition("/")
    if kind == "sources" and not rest:
        return Address("sources")
    if kind == "tasks" and rest:
        return _task_address(rest)
    if kind == "runs" and rest:
        run_id, _, part = rest.partition("/")
        if run_id and part in ("", "logs"):
            return Address("logs" if part else "run", unquote(run_id))
    return None


def _task_address(rest: str) -> Address | None:
    task_id, mark, path = rest.partition("/files/")
    if not mark:
        waiting = rest.removesuffix("/pending")
        return Address("task" if waiting == rest else "pending", unquote(waiting))
    if not task_id or not path:
        return None
    return Address("file", unquote(task_id), unquote(path))

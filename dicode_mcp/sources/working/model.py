"""What is asked of the helper and what it answers: values that go over a pipe as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dicode_mcp.sources.git.jobs import Access, Bounds
from dicode_mcp.sources.git.remote import Reach


@dataclass(frozen=True, slots=True)
class Author:
    """Who a commit says wrote it."""

    name: str
    email: str

    def __str__(self) -> str:
        """Write it as git does."""
        return f"{self.name} <{self.email}>"


@dataclass(frozen=True, slots=True)
class CloneOrder:
    """Make, or bring up to date, a work tree of ``branch``; a new one begins at ``base``."""

    folder: str
    remote: Access
    branch: str
    base: str | None
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Clone:
    """A work tree. ``created``: the remote has no such branch yet; a push will make it.

    ``kept``: the remote has moved on, and the work tree stays as it is because it was edited.
    """

    folder: str
    branch: str
    commit: str
    created: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True)
class CommitOrder:
    """Commit what is in ``folder`` on ``branch`` (None: the one checked out).

    ``at_s`` is the time of the commit, seconds since the epoch. With ``remote`` the branch is
    pushed there, never forced; without, to the work tree's ``origin`` when ``push`` is set.
    ``reach`` is how far such an ``origin`` may lead.
    """

    folder: str
    message: str
    at_s: int
    branch: str | None = None
    author: Author | None = None
    push: bool = False
    remote: Access | None = None
    reach: Reach = Reach.NETWORK


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file of a commit; lines added and removed, absent for what is not text."""

    path: str
    change: Literal["added", "modified", "deleted"]
    added: int | None = None
    removed: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that was made. ``commit`` is also set when there was nothing left but to push."""

    commit: str
    branch: str
    files: tuple[FileChange, ...]
    author: str
    pushed: bool = False
    skipped: tuple[str, ...] = ()
    """Files of the folder that are no part of the commit: ignored, hidden, links."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a helper process is started for: one of the two."""

    clone: CloneOrder | None = None
    commit: CommitOrder | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What it came to. ``error`` is an error's code, message, hint, data and retry."""

    clone: Clone | None = None
    commit: Committed | None = None
    error: dict[str, Any] | None = None

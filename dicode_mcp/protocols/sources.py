"""Where tasks come from: revisions, references and what a source answers."""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from dicode_mcp.conditions import Condition


@dataclass(frozen=True, slots=True)
class Commit:
    """A git commit, as shown to people. ``at_ms`` is the committer's time (ms since the epoch)."""

    id: str
    author: str
    subject: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Revision:
    """An immutable view of a source: a folder to read, and the commit it shows (git only).

    From git, ``root`` is the checkout of the whole tree at ``commit``; nothing in it ever changes.
    """

    source: str
    root: Path
    commit: str | None = None
    commit_info: Commit | None = None
    start: str = ""
    """Where in ``root`` the tasks begin: a folder or a TaskSet file, relative; empty: the root."""
    trees: Mapping[str, str] | None = field(default=None, compare=False, repr=False)
    """From git: the tree id of each folder, by its path below ``root`` (``""`` is the root).

    Folders with equal ids hold the same bytes, in this revision and in any other of its source.
    Reading it may read a file, once: not for the event loop.
    """


@dataclass(frozen=True, slots=True)
class GitAuth:
    """How to prove who is asking: names of a variable and of files, never their content.

    ``host_keys`` is what ssh does with the key of a host it does not know: ``strict`` refuses,
    ``accept-new`` notes it the first time. ``known_hosts`` is a file besides the user's own.
    """

    token_env: str | None = None
    ssh_key: str | None = None
    username: str | None = None
    host_keys: Literal["strict", "accept-new"] = "strict"
    known_hosts: str | None = None


@dataclass(frozen=True, slots=True)
class GitLimits:
    """What an honest repository stays within; sizes in bytes."""

    max_files: int = 100_000
    max_file_size: int = 64 * 2**20
    max_total_size: int = 4 * 2**30
    max_depth: int = 32


@dataclass(frozen=True, slots=True)
class GitRef:
    """What to fetch. ``commit`` goes before ``tag``, ``tag`` before ``branch``.

    ``trusted``: the user's own dicode.yaml names the URL, so that it may lead to this machine or a
    private network (with ``server.allow_local_git``) and carry credentials.
    """

    url: str
    branch: str = "main"
    tag: str | None = None
    commit: str | None = None
    auth: GitAuth | None = None
    poll_interval_s: float = 30.0
    depth: int | None = None
    """How many commits of history to keep; None keeps all, which makes every pin possible."""
    trusted: bool = False
    limits: GitLimits = GitLimits()


@dataclass(frozen=True, slots=True)
class DevMode:
    """What a source shows instead of its own revision. Neither field: only dev_refs switch."""

    local_path: str | None = None
    branch: str | None = None


@dataclass(frozen=True, slots=True)
class SourceOverrides:
    """What was decided for a source while the server ran, and survives a restart."""

    dev: DevMode | None = None
    pin: str | None = None
    """A commit (40 hex) to stay at; None follows the branch."""

    def __bool__(self) -> bool:
        """Tell whether anything was decided."""
        return self.dev is not None or self.pin is not None


class Checkouts(Protocol):
    """What is on disk of git repositories: one for a server, shared by all sources."""

    async def latest(self, ref: GitRef, *, now: bool = False) -> Revision:
        """Give the newest good revision; with ``now``, ask the remote first.

        When the remote cannot be asked, or what it has is refused, the last good one is given and
        ``trouble`` says why it is old. Raises ``DicodeError`` when there is none at all.
        """
        ...

    def current(self, ref: GitRef) -> Revision | None:
        """Give what is on disk already; asks nobody. May be called from any thread."""
        ...

    def trouble(self, ref: GitRef) -> Condition | None:
        """Say why ``ref`` is old or missing: ``Synced=False`` and a reason; None when it is not.

        May be called from any thread.
        """
        ...

    def watch(self, ref: GitRef) -> AsyncIterator[None]:
        """Wake when ``ref`` has another revision or trouble, by poll or by push.

        While anyone iterates, its (url, branch) is polled, once for all, at the smallest interval.
        """
        ...

    async def push_hint(self, url: str) -> int:
        """Pull every watched ref of ``url`` now; gives how many there are. Bursts are one pull."""
        ...

    def keep(self, revisions: Iterable[str]) -> None:
        """Say which commits or trees are in use; other checkouts may go, except the newest."""
        ...


class Source(Protocol):
    """Where tasks come from. An adapter fetches and watches; it never reads a manifest."""

    @property
    def name(self) -> str:
        """The source's name, unique in the server."""
        ...

    @property
    def kind(self) -> Literal["local", "git"]:
        """What the source is."""
        ...

    @property
    def location(self) -> str:
        """The path or URL, for display; never with credentials."""
        ...

    @property
    def namespace(self) -> str:
        """What the ids of plain folders begin with; empty unless the user named the source."""
        ...

    async def fetch(self) -> Revision:
        """Bring the newest good revision; raises ``DicodeError`` when it cannot."""
        ...

    def changes(self) -> AsyncIterator[frozenset[Path] | None]:
        """Wake the reconciler: each item names the changed paths (None: anything) once.

        Ends never by itself; cancelling the iteration releases what it holds.
        """
        ...

    def conditions(self) -> Sequence[Condition]:
        """Give what is true of the source besides ``Ready`` and ``Synced``; empty when well."""
        ...

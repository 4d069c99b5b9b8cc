"""What resolving asks of the outside: what is at a path, what a repository holds, who this is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from dicode_mcp.spec.problems import Problem
from dicode_mcp.spec.taskset.documents import RefAuth, TaskSetDoc


@dataclass(frozen=True, slots=True)
class Remote:
    """A version of a repository that an entry names.

    ``trusted``: the URL is the user's own choice, so it may lead to a private network and be sent
    the credentials that ``auth`` names.
    """

    url: str
    branch: str = "main"
    tag: str | None = None
    commit: str | None = None
    poll_interval_s: float = 30.0
    auth: RefAuth | None = None
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder that refs are followed in.

    ``confined``: it is a checkout, which refs may not leave. ``own``: the user configured it, so
    ``dev_ref`` counts. ``shown`` stands before paths in messages, empty for the source itself.
    """

    root: Path
    revision: str | None = None
    confined: bool = False
    own: bool = True
    trusted: bool = True
    """What it holds may run without an approval."""
    remote: Remote | None = None
    shown: str = ""
    trees: Mapping[str, str] | None = field(default=None, compare=False, repr=False)
    """The git tree id of each folder below ``root``, where that is known."""

    def name_of(self, path: Path) -> str:
        """Give what messages call a path."""
        if not path.is_relative_to(self.root):
            return str(path)
        inner = path.relative_to(self.root).as_posix()
        return f"{self.shown}:{inner}" if self.shown else inner


class What(Enum):
    """What can be at a path."""

    SET = "set"
    TASK = "task"
    FOLDER = "folder"
    """Neither; tasks may be below it."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Spot:
    """What is at a path: for a set its file, else the folder. ``fault`` says why it is nothing."""

    what: What
    path: Path
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A task or set folder below another, by its relative name. ``fault``: it cannot be used."""

    name: str
    folder: Path
    is_set: bool = False
    fault: Problem | None = None


@dataclass(frozen=True, slots=True)
class Below:
    """What a search of a folder gave. ``unread`` folders could not be searched."""

    hits: Sequence[Hit] = ()
    unread: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a repository cannot be had now: a stable reason, a sentence, what to do."""

    reason: str
    message: str
    hint: str = ""


class Lock(Protocol):
    """What stands beside a set file and says which commits were reviewed."""

    @property
    def fault(self) -> str:
        """Why nothing of it can be read now, with what to do; empty when it can."""
        return ""

    def holds(self, entry: str) -> bool:
        """Tell whether an entry of the set is pinned."""
        ...

    def pinned(self, entry: str, remote: Remote) -> Remote | None:
        """Give a repository that ``entry`` leads to, itself or nested, at the commit reviewed."""
        ...


class World(Protocol):
    """Answers from disk and memory; asks no remote. Blocks."""

    @property
    def dev(self) -> bool:
        """Whether the source is in dev mode."""
        ...

    @property
    def host(self) -> frozenset[str]:
        """The names and labels of this server."""
        ...

    @property
    def home(self) -> Path:
        """What ``~`` means."""
        ...

    def look(self, path: Path, tree: Tree) -> Spot:
        """Say what is at a path. A path that leaves a confined tree by a link is nothing."""
        ...

    def search(self, folder: Path, tree: Tree) -> Below:
        """Find every task and set folder below a folder, sorted by name."""
        ...

    def read_set(self, file: Path, shown: str) -> TaskSetDoc:
        """Read a set's file; raises ``SpecError`` when it cannot be used."""
        ...

    def checkout(self, remote: Remote) -> Tree | Trouble:
        """Give what is on disk of a repository."""
        ...

    def lock(self, file: Path) -> Lock | None:
        """Give what the lock beside a set's file says of it; raises ``SpecError``."""
        ...

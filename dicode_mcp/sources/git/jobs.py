"""What the server and its git worker say to each other: plain values that travel as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dicode_mcp.sources.git.failures import Failure, Reason
from dicode_mcp.sources.git.remote import Reach


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a remote. ``password`` travels over a pipe only, and is shown nowhere."""

    url: str
    reach: Reach
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ssh_key: str | None = None
    host_keys: Literal["strict", "accept-new"] = "strict"
    known_hosts: str | None = None
    proxy: str | None = field(default=None, repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Want:
    """Which commit: the head of a branch, a tag, or the commit itself."""

    kind: Literal["branch", "tag", "commit"]
    name: str

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a repository may hold and a job may take; sizes in bytes, times in seconds."""

    max_files: int
    max_file_size: int
    max_total_size: int
    max_depth: int
    memory: int = 512 * 2**20
    """Of the job's own data; a repository's packs are mapped and do not count."""
    cpu_s: int = 120
    deadline_s: float = 300.0
    silence_s: float = 20.0
    """How long a remote may say nothing."""


Op = Literal["ask", "fetch", "restore", "settle"]


@dataclass(frozen=True, slots=True)
class Job:
    """One thing for the worker to do.

    ``ask``: which commit does the remote have? ``fetch``: bring it, and write its tree to
    ``checkouts``. ``restore``: write the tree of ``want`` (a commit) from the mirror alone.
    ``settle``: return when all that was written to ``checkouts`` is on the disk; tidy the mirror.
    """

    op: Op
    access: Access
    want: Want
    bounds: Bounds
    mirror: str = ""
    checkouts: str = ""
    base: str | None = None
    """The name of an older checkout, whose unchanged files are shared."""
    depth: int | None = None
    at_once: bool = False
    """An ``ask`` before this one said that the remote may be asked without asking how."""

    def dump(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Job:
        """Read what ``dump`` wrote."""
        raw: dict[str, Any] = json.loads(text)
        access = raw.pop("access")
        access["reach"] = Reach(access["reach"])
        return cls(
            access=Access(**access),
            want=Want(**raw.pop("want")),
            bounds=Bounds(**raw.pop("bounds")),
            **raw,
        )


@dataclass(frozen=True, slots=True)
class Good:
    """A commit whose tree is on disk, in the checkout named ``tree``."""

    commit: str
    tree: str
    author: str
    subject: str
    at_ms: int
    skipped: tuple[str, ...] = ()
    """What the tree holds and the checkout does not, the first of them, each with its reason."""
    skipped_count: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a job ended: what was wrong, or what the ref is, and its tree where that was fetched.

    ``tip`` is compared with an earlier one to see whether anything is new; for a tag it is the
    tag's own object.
    """

    failure: Failure | None = None
    tip: str | None = None
    good: Good | None = None
    at_once: bool = False

    def dump(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Answer:
        """Read what ``dump`` wrote; raises ``ValueError``, ``KeyError`` or ``TypeError``."""
        raw: dict[str, Any] = json.loads(text)
        failure, good = raw["failure"], raw["good"]
        return cls(
            failure=_failure(failure) if failure else None,
            tip=raw["tip"],
            good=load_good(good) if good else None,
            at_once=bool(raw["at_once"]),
        )


def _failure(raw: dict[str, Any]) -> Failure:
    return Failure(Reason(raw["reason"]), str(raw["message"]), str(raw["hint"]))


def load_good(raw: dict[str, Any]) -> Good:
    """Read a ``Good`` from what JSON gives; raises ``KeyError`` or ``TypeError``."""
    fields: dict[str, Any] = {**raw, "skipped": tuple(raw["skipped"])}
    return Good(**fields)

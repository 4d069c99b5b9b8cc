"""What the store keeps and is asked for, beside runs: pages, queries and rows."""

from __future__ import annotations

from collections.abc import (
    Mapping,
)
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.runs.statistics import Tally, TaskDay

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing and the cursor of the next, if there is more."""

    items: tuple[T, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list, newest first: by ``created_at_ms``, then ``id``, both falling.

    ``since_ms`` bounds ``created_at_ms`` from below. ``root_run_id`` and ``parent_run_id`` match
    the run's own fields, so the root itself is not among its descendants. ``limit`` is at least 1;
    more than 1,000 gives 1,000. ``offset`` leaves out so many of the newest (at most 10,000; it
    reads an index entry for each, and a cursor does not).
    """

    task_id: str | None = None
    statuses: frozenset[RunStatus] | None = None
    since_ms: int | None = None
    root_run_id: str | None = None
    parent_run_id: str | None = None
    limit: int = 50
    cursor: str | None = None
    offset: int = 0
    task_ids: tuple[str, ...] | None = None
    """Only runs of these tasks; not beside ``root_run_id`` and ``parent_run_id``."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines of a run's log: after the ``seq`` last seen, or the last ``tail`` of them.

    ``level`` keeps that level and above. With ``tail``, ``limit`` does not apply. At most 10,000
    lines are given at once.
    """

    after: int = 0
    tail: int | None = None
    level: Level | None = None
    limit: int = 500


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in order; ``next_after`` is set when there are more."""

    lines: tuple[LogLine, ...]
    next_after: int | None = None


@dataclass(frozen=True, slots=True)
class DayQuery:
    """Which sums of runs by task and UTC day to give, newest day first, then by task.

    Days are counted from 1970-01-01 and both bounds count. ``task_ids`` None is all. Of more than
    ``measured`` days the durations are not added up.
    """

    task_ids: tuple[str, ...] | None = None
    since_day: int | None = None
    until_day: int | None = None
    limit: int = 50
    measured: int = 5_000


@dataclass(frozen=True, slots=True)
class DayPage:
    """The first days of a query; ``totals`` adds up all that it found, not only these."""

    days: tuple[TaskDay, ...]
    totals: Tally
    more: bool = False


@dataclass(frozen=True, slots=True)
class PruneQuery:
    """Which runs of a task are not to be kept, oldest first.

    Those that ended before ``ended_before_ms``, and those beyond the ``keep`` newest of the task
    (pinned ones and unfinished ones count among them); None sets no such bound.
    """

    task_id: str
    ended_before_ms: int | None = None
    keep: int | None = None
    limit: int = 200
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RunsSize:
    """What runs take: bytes of parameters, inputs, values, outputs and logs as stored."""

    runs: int = 0
    bytes: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One control action."""

    at_ms: int
    actor: str
    surface: str
    action: str
    target: str
    outcome: str
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    id: int = 0
    chain: str | None = None
    """What binds the entry to the one before it; None in entries of before there was a chain."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which audit entries; what is None does not narrow.

    ``actor`` or ``target`` ends with ``*`` for all that begin with what stands before it.
    """

    action: str | None = None
    actor: str | None = None
    target: str | None = None
    since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A stored pause of a task."""

    task_id: str
    at_ms: int
    actor: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """A human's yes to one version of a task: its content hash, and the commit it was read at."""

    task_id: str
    digest: str
    at_ms: int
    actor: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret as it is kept: sealed under its name and the time of its last change."""

    name: str
    sealed: str = field(repr=False)
    updated_at_ms: int
    actor: str


@dataclass(frozen=True, slots=True)
class BearerKey:
    """A caller's key as it is kept: its digest, never itself. ``scopes`` as they are written."""

    id: str
    name: str
    digest: str = field(repr=False)
    scopes: tuple[str, ...]
    created_at_ms: int
    created_by: str
    expires_at_ms: int | None = None
    last_used_at_ms: int | None = None
    revoked_at_ms: int | None = None

"""Conditions: what is true of a task or a source now, in the form Kubernetes made known.

``Ready`` is on every task and source. The others are there only when they say something.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class ConditionType(StrEnum):
    """The kinds of condition."""

    READY = "Ready"
    """False: what is written cannot be put in force; the last good version stays, if any."""
    PAUSED = "Paused"
    """True: a stored pause; the task takes no new run."""
    BUDGET_REACHED = "BudgetReached"
    """True: the task's budget of the day is spent; it takes no new run until the next day."""
    MISSED_RUNS = "MissedRuns"
    """True: cron slots of the last day got no run in time; the message says how many and why."""
    CONFLICT = "Conflict"
    """True: another task or source owns the id or the webhook path."""
    NOT_IN_FORCE = "NotInForce"
    """True: a declared field is accepted but has no effect on this server yet."""
    RUNTIME = "RuntimeAvailable"
    """False: this machine lacks what the task's runtime needs."""
    DEPENDENCIES = "DependenciesReady"
    """False: dependencies are being prepared, or could not be."""
    TYPES = "TypesChecked"
    """False: the type checker found errors in the script; it runs all the same."""
    REFERENCES = "ReferencesFound"
    """False: a task that this one names (its failure chain) is not there; it runs all the same."""
    NOTIFICATION_FAILING = "NotificationFailing"
    """True: what people should be told of the task does not reach them."""
    ENFORCED = "PermissionsEnforced"
    """False: this machine cannot hold the task to all that its manifest says."""
    PERMISSIONS = "PermissionsUsed"
    """False: the last runs did without some of what the task may do; the message says of which."""
    CRASH_LOOPING = "CrashLooping"
    """True: a daemon keeps ending and is restarted with growing delays."""
    SYNCED = "Synced"
    """On sources: False when the last fetch failed and an older revision is in force."""
    TASKS = "TasksReady"
    """On sources: False when what some of their tasks say cannot be put in force."""
    PINNED = "Pinned"
    """On git sources: True while it stays at a commit that was chosen."""
    COMPLETE = "Complete"
    """On git sources: False when the repository holds entries that are left out (links)."""
    PUSH = "PushWebhook"
    """On git sources: False when pushes are not listened for, because the secret is not set."""
    WATCHED = "Watched"
    """On sources: False when changes are looked for on a timer, because they cannot be watched."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. ``since_ms`` is when ``status`` last changed (ms since the epoch).

    A fault of a file is told as ``file:line: what; what to do`` in ``message``, a line each.
    """

    type: ConditionType
    status: bool
    reason: str
    message: str = ""
    since_ms: int = 0


def carry_since(
    new: Iterable[Condition], old: Iterable[Condition], now_ms: int
) -> tuple[Condition, ...]:
    """Give ``new`` with the ``since_ms`` of equal type, status and reason in ``old`` kept."""
    known = {(c.type, c.status, c.reason): c.since_ms for c in old}
    return tuple(
        replace(c, since_ms=known.get((c.type, c.status, c.reason), 0) or c.since_ms or now_ms)
        for c in new
    )


def find(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """Give the condition of a type, if there."""
    return next((c for c in conditions if c.type is kind), None)

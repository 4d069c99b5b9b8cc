"""Whether a run that ended badly is tried again, and when: decided here, written with its end.

Pure; chance is passed in. Attempts are rows of their own, linked by ``retry_of``.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from dicode_mcp.runs.model import (
    Outcome,
    Reason,
    Run,
    RunError,
    RunStatus,
    Trigger,
    new_run_id,
)

if TYPE_CHECKING:
    from dicode_mcp.spec.model import RetrySpec, Task

CLASSES = ("failure", "timeout", "lost")
"""What ``retry.on`` names to mean a whole class of ends."""

NEVER = frozenset(
    {
        Reason.NO_RETRY,
        Reason.RETRY_DEADLINE,
        Reason.INVALID_PARAMS,
        Reason.TASK_GONE,
        Reason.SECRET_MISSING,
        Reason.ENV_MISSING,
        Reason.SANDBOX_UNAVAILABLE,
        Reason.RUNTIME_UNAVAILABLE,
        Reason.CHAIN_DEPTH,
        Reason.DECLINED,
        Reason.ANSWER_TIMEOUT,
    }
)
"""Ends that the same start can only repeat, until somebody changes the task or the machine."""

REASONS = (
    Reason.SCRIPT_ERROR,
    Reason.EXIT_CODE,
    Reason.SIGNAL,
    Reason.EXITED_EARLY,
    Reason.RETURN_TOO_LARGE,
    Reason.RETURN_NOT_JSON,
    Reason.OUTPUT_TOO_LARGE,
    Reason.OUTPUT_SCHEMA,
    Reason.START_FAILED,
    Reason.DEPENDENCIES,
    Reason.PROTOCOL_ERROR,
    Reason.INTERNAL,
)
"""What ``retry.on`` names to mean one kind of failure."""

_NO_ATTEMPTS = frozenset({Trigger.TEST, Trigger.DAEMON})
"""A test is to show its failure; a daemon has a supervisor of its own."""


@dataclass(frozen=True, slots=True)
class Again:
    """The next attempt: when it may start, and the time (epoch ms) after which none may."""

    not_before_ms: int
    until_ms: int | None


def again(ended: Run, spec: RetrySpec | None, random: Random) -> Again | None:
    """Say when a run that ended is to be tried again, or None.

    The wait is anything from nothing to ``backoff`` doubled with each attempt, at most
    ``max_backoff``, all equally likely: many runs that failed together do not come back together.
    """
    if spec is None or ended.attempt >= spec.attempts or not _fits(ended, spec.on):
        return None
    now = ended.finished_at_ms or ended.created_at_ms
    until = _until(ended, spec)
    longest = min(spec.max_backoff, spec.backoff * 2.0 ** (ended.attempt - 1)) * 1000
    if until is not None:
        if now >= until:
            return None
        longest = min(longest, until - now)
    return Again(now + int(random.random() * longest), until)


def next_attempt(ended: Run, when: Again, task: Task) -> Run:
    """Give the row of the next attempt: the same wish, by the version of the task in force."""
    now = ended.finished_at_ms or ended.created_at_ms
    return Run(
        id=new_run_id(now),
        task_id=ended.task_id,
        status=RunStatus.QUEUED,
        trigger=Trigger.RETRY,
        created_at_ms=now,
        task_hash=task.digest,
        revision=task.revision,
        actor=ended.actor,
        origin=ended.origin,
        attempt=ended.attempt + 1,
        priority=ended.priority,
        limit_key=ended.limit_key,
        parent_run_id=ended.parent_run_id,
        root_run_id=ended.root_run_id or ended.id,
        replay_of=ended.replay_of,
        retry_of=ended.id,
        retry_until_ms=when.until_ms,
        chain_depth=ended.chain_depth,
        idempotency_key=f"retry:{ended.id}",
        not_before_ms=when.not_before_ms,
    )


def too_late(run: Run, now_ms: int) -> Outcome | None:
    """Give the end of an attempt whose turn comes after the deadline, or None."""
    if run.retry_until_ms is None or now_ms <= run.retry_until_ms:
        return None
    error = RunError(
        Reason.RETRY_DEADLINE,
        f"attempt {run.attempt} was not begun: retry.deadline had passed while it waited for its"
        f" turn; run {run.retry_of} is the attempt before it",
        f'get_run with run_id "{run.retry_of}" shows why that one failed; raise retry.deadline in'
        " task.yaml, or give the server more slots",
    )
    return Outcome(RunStatus.FAILURE, now_ms, reason=Reason.RETRY_DEADLINE, error=error)


def _fits(ended: Run, on: tuple[str, ...]) -> bool:
    why = {ended.reason, ended.error.code if ended.error else None}
    if ended.trigger in _NO_ATTEMPTS or why & NEVER:
        return False
    kind = _class_of(ended)
    return kind is not None and not {kind, *why}.isdisjoint(on)


def _class_of(ended: Run) -> str | None:
    """Give the class of an end; None where there is nothing to mend.

    A run that a stopping server ended is lost to its user as much as one that a crash ended.
    """
    if ended.status is RunStatus.CANCELLED and ended.reason == Reason.SHUTDOWN:
        return "lost"
    by_status = {
        RunStatus.FAILURE: "failure",
        RunStatus.TIMEOUT: "timeout",
        RunStatus.LOST: "lost",
    }
    return by_status.get(ended.status)


def _until(ended: Run, spec: RetrySpec) -> int | None:
    if ended.attempt > 1:
        return ended.retry_until_ms
    if spec.deadline is None:
        return None
    return (ended.started_at_ms or ended.created_at_ms) + int(spec.deadline * 1000)

"""How runs that belong together are shown: the attempts of one wish, the tree of one root. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dicode_mcp.clock import iso
from dicode_mcp.runs.model import Run, RunStatus

MAX_TREE = 100
"""How many runs of a tree are shown."""


def attempts_view(run: Run, attempts: Sequence[Run]) -> dict[str, Any]:
    """Show what a run has besides itself: the ids of all attempts, and the one that follows it."""
    view: dict[str, Any] = {}
    if run.retry_of is not None:
        view["retry_of"] = run.retry_of
    if run.status is RunStatus.QUEUED and run.not_before_ms is not None:
        view["not_before"] = iso(run.not_before_ms)
    if len(attempts) > 1:
        view["attempts"] = [attempt.id for attempt in attempts]
    following = next((other for other in attempts if other.retry_of == run.id), None)
    if following is None:
        return view
    view["next_attempt"] = _next_view(following)
    view["next"] = (
        f'it is tried again: get_run with run_id "{attempts[-1].id}" and wait_seconds to wait for'
        " the newest attempt; cancel_run with either id ends the attempts"
    )
    return view


def _next_view(run: Run) -> dict[str, Any]:
    view: dict[str, Any] = {"run_id": run.id, "attempt": run.attempt, "status": run.status.value}
    if run.status is RunStatus.QUEUED and run.not_before_ms is not None:
        view["not_before"] = iso(run.not_before_ms)
    return view


def tree_view(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Show the runs under a root, each after the one that led to it, and at most ``MAX_TREE``."""
    return [_branch_view(run) for run in _in_order(runs[:MAX_TREE])]


def _branch_view(run: Run) -> dict[str, Any]:
    view = {
        "run_id": run.id,
        "task": run.task_id,
        "status": run.status.value,
        "trigger": run.trigger.value,
        "parent_run_id": run.parent_run_id,
        "retry_of": run.retry_of,
        "attempt": run.attempt,
        "duration_ms": run.duration_ms,
        "reason": run.reason,
    }
    return {name: value for name, value in view.items() if value is not None}


def _in_order(runs: Sequence[Run]) -> Iterable[Run]:
    """Go through a tree from its root down, brothers by age; runs with a parent unseen come last.

    An attempt counts as a brother of the one before it, right after it and what followed it.
    """
    known = {run.id for run in runs}
    below: dict[str | None, list[Run]] = {}
    for run in runs:
        parent = run.parent_run_id if run.parent_run_id in known else None
        below.setdefault(parent, []).append(run)
    stack = list(reversed(below.get(None, ())))
    while stack:
        run = stack.pop()
        yield run
        stack += reversed(below.get(run.id, ()))

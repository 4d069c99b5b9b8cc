"""What callers see of installing, updating and removing tasks: plain dicts, absent over null."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from dicode_mcp.clock import iso
from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.protocols import Revision
from dicode_mcp.registry import Entry
from dicode_mcp.service.approvals import PENDING, how_to_approve
from dicode_mcp.service.previews import Preview, Previewed
from dicode_mcp.service.views import problem_view
from dicode_mcp.spec.giturl import short_url
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.taskset.lock import Pin
from dicode_mcp.triggers.timetable import plan_of

MOST_TASKS = 20
MOST_PROBLEMS = 20
MOST_CHANGES = 24_000
"""Characters of differences in one answer."""


@dataclass(frozen=True, slots=True)
class Review:
    """What a version may do, and what another changes about that and about its files."""

    grants: Callable[[Task], dict[str, Any]]
    changes: Callable[[Task | None, Task], dict[str, Any]]


def trigger_words(task: Task) -> str:
    """Say what starts a task: ``cron: 0 9 * * *``, ``webhook: /hooks/x``, ``manual``."""
    trigger = task.spec.trigger
    if trigger.cron is not None:
        return f"cron: {trigger.cron}"
    if trigger.webhook is not None:
        return f"webhook: {trigger.webhook}"
    if trigger.chain is not None:
        return f"chain: after {', '.join(trigger.chain.sources)} ({trigger.chain.on})"
    return "daemon" if trigger.daemon else "manual"


def start_view(task: Task, zone: ZoneInfo, now_ms: int) -> dict[str, Any]:
    """Show what starts a task, and when it would next: ``{trigger, next_run?}``."""
    plan = plan_of(task, zone)
    slot = plan.schedule.after(now_ms) if plan else None
    view: dict[str, Any] = {"trigger": trigger_words(task)}
    if plan is not None and slot is not None:
        view["next_run"] = iso(plan.schedule.due(task.id, slot))
    return view


def pin_view(pin: Pin, revision: Revision | None) -> dict[str, Any]:
    """Show a repository at its commit: ``{url, ref, commit, subject?, author?, time?}``."""
    kind, name = pin.version
    view: dict[str, Any] = {
        "url": short_url(pin.url),
        "ref": name[:12] if kind == "commit" else name,
        "commit": pin.commit,
    }
    return view | commit_view(revision)


def commit_view(revision: Revision | None) -> dict[str, Any]:
    """Show who made a commit, when, and what they said of it."""
    info = revision.commit_info if revision else None
    if info is None:
        return {}
    return {"subject": info.subject, "author": info.author, "time": iso(info.at_ms)}


def approval_of(entry: Entry | None, task: Task) -> str:
    """Say how a version stands: ``in_force``, ``pending_approval``, ``broken``, ``conflict``."""
    if entry is None or entry.contested:
        return "conflict" if entry else "broken"
    ready = find(entry.conditions, ConditionType.READY)
    if ready is not None and not ready.status:
        return "pending_approval" if ready.reason == PENDING else "broken"
    return "in_force" if entry.task and entry.task.digest == task.digest else "broken"


def task_lines(
    preview: Preview,
    entry_of: Callable[[str], Entry | None],
    review: Review,
    zone: ZoneInfo,
    now_ms: int,
) -> list[dict[str, Any]]:
    """Show the tasks of an entry, the first of them."""
    return [
        _task_line(found, entry_of(found.declared.id), review, zone, now_ms)
        for found in preview.tasks[:MOST_TASKS]
    ]


def _task_line(
    found: Previewed, entry: Entry | None, review: Review, zone: ZoneInfo, now_ms: int
) -> dict[str, Any]:
    task = found.task
    if task is None:
        problems = [problem_view(problem) for problem in found.problems[:MOST_PROBLEMS]]
        return {"id": found.declared.id, "state": "broken", "problems": problems}
    state = approval_of(entry, task)
    view: dict[str, Any] = {
        "id": task.id,
        "name": task.spec.name,
        "description": task.spec.description,
        **start_view(task, zone, now_ms),
        "state": state,
        "hash": task.digest,
        "grants": review.grants(task),
    }
    if state == "pending_approval":
        view["approve"] = how_to_approve(task)
    elif entry is not None and state != "in_force":
        ready = find(entry.conditions, ConditionType.READY)
        told = find(entry.conditions, ConditionType.CONFLICT) if entry.contested else ready
        if told is not None and told.message:
            view["message"] = told.message
    return view


def problems_of(preview: Preview) -> list[dict[str, Any]]:
    """Show what is wrong with entries that give no task."""
    shown = [problem_view(problem) for problem in preview.problems[:MOST_PROBLEMS]]
    rest = len(preview.problems) - len(shown)
    return [*shown, *([{"message": f"and {rest} more"}] if rest > 0 else [])]


def next_step(tasks: Sequence[Mapping[str, Any]]) -> str:
    """Say what to do with what was brought."""
    waiting = [str(task["id"]) for task in tasks if task.get("state") == "pending_approval"]
    if not waiting:
        return "nothing waits for an approval; get_task shows how each task stands"
    names = ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
    return (
        f"{names}: not in force until a human approves; show them `grants`, then call approve_task"
        " with id and hash as given in `approve`"
    )

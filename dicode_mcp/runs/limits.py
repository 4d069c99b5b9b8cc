"""How many runs of a task are on at once, and what becomes of one too many. Pure.

Runs of a task whose ``concurrency.key`` comes to the same text are a group. A run is *on* from the
moment it is handed out to its end, also while it waits for a run that it started. A run that waits
for its time (an attempt after a failure) or for an answer holds no place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dicode_mcp.clock import iso
from dicode_mcp.runs.model import Reason, Run, RunError, Trigger
from dicode_mcp.spec.model import ConcurrencySpec

Overlap = Literal["queue", "skip", "replace", "allow"]

_PLACEHOLDER = re.compile(r"\$\{params\.([^}]*)\}")

_OUTSIDE = frozenset({Trigger.DAEMON, Trigger.TEST})
"""A daemon's run is one by nature, and a test is no run of the task's work."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that are counted together: a task, and what its key came to."""

    task_id: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """How many runs of a group may be on (None: any number), and what a further one does."""

    limit: int | None
    overlap: Overlap


FREE = Policy(None, "allow")
_CRON = Policy(1, "skip")


@dataclass(frozen=True, slots=True)
class Crowd:
    """The unfinished runs of a group by id, in the order they came.

    Those that are ``on``, those that are ``due`` and wait for a place, and ``everyone``: these two
    and those that wait for their time.
    """

    on: tuple[str, ...] = ()
    due: tuple[str, ...] = ()
    everyone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a queued run does not start: its group is full of the runs ``on``."""

    group: Group
    limit: int
    on: tuple[str, ...]


def limit_of(spec: ConcurrencySpec | None) -> int | None:
    """Give how many runs of a group may be on; None when nothing bounds them.

    ``overlap: allow`` alone sets no bound; a limit or a key that is written always does.
    """
    if spec is None:
        return None
    bounded = {"limit", "key"} & spec.model_fields_set or spec.overlap not in (None, "allow")
    return spec.limit if bounded else None


def policy_of(spec: ConcurrencySpec | None, trigger: Trigger) -> Policy:
    """Give what holds for a run that is about to be stored."""
    if trigger in _OUTSIDE:
        return FREE
    limit = limit_of(spec)
    if trigger is Trigger.RETRY:
        # It goes on with what was let in before: it waits for its place, and takes nobody's.
        return Policy(limit, "queue")
    overlap = spec.overlap if spec else None
    if overlap is None and trigger is Trigger.CRON:
        return _CRON if limit is None else Policy(limit, "skip")
    return Policy(limit, overlap or "allow")


def group_of(run: Run) -> Group:
    """Give the group of a run."""
    return Group(run.task_id, run.limit_key or "")


def expand_key(spec: ConcurrencySpec | None, params: Mapping[str, Any]) -> str | None:
    """Give the SHA-256 (hex) of what ``concurrency.key`` comes to; None without one.

    It stands in the run's row, which is not sealed, and a parameter may hold anything.
    """
    if spec is None or spec.key is None:
        return None
    key = _PLACEHOLDER.sub(lambda found: _text(params.get(found[1])), spec.key)
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def overlapping(policy: Policy, crowd: Crowd) -> str | None:
    """Give the run for which a further one is skipped; None when it may come in.

    Runs that are on count, and those that only wait for a place.
    """
    present = (*crowd.on, *crowd.due)
    if policy.overlap != "skip" or policy.limit is None or len(present) < policy.limit:
        return None
    return present[0]


def replaced(
    policy: Policy, everyone: Sequence[str], spared: Collection[str] = ()
) -> tuple[str, ...]:
    """Give the runs that make place for the newest of a group, oldest first.

    ``everyone`` are its unfinished runs in the order they came; ``spared`` are let be.
    """
    if policy.overlap != "replace" or policy.limit is None:
        return ()
    return tuple(run_id for run_id in everyone[: -policy.limit] if run_id not in spared)


def overlap_error(run: Run, before: str, limit: int) -> RunError:
    """Say that a run is skipped, and for which."""
    what = "this run" if run.slot_ms is None else f"the slot {iso(run.slot_ms)}"
    several = "" if limit == 1 else f" ({limit} at once are allowed)"
    hint = "set concurrency.overlap in task.yaml to queue, allow or replace to have it otherwise"
    if run.slot_ms is not None:
        hint = "make the task quicker or its cron expression wider, or " + hint
    return RunError(
        Reason.OVERLAP, f"{what} was skipped: run {before} of this task was still on{several}", hint
    )


def deadlock_error(blocked: Blocked) -> RunError:
    """Say that a run could never start, since who holds its place waits for it."""
    limit = "1 run" if blocked.limit == 1 else f"{blocked.limit} runs"
    task = blocked.group.task_id
    holders = ", ".join(blocked.on[:5])
    return RunError(
        Reason.DEADLOCK,
        f"this run would never start: task {task} takes {limit} at a time (concurrency.limit), and "
        f"{holders} holds that place while waiting, itself or through others, for this run",
        f"do not wait for it (dicode.trigger), raise concurrency.limit of {task}, or give it a "
        "concurrency.key that tells the two apart",
    )


def stuck(
    start: str,
    waits_for: Callable[[str], Collection[str]],
    blocked: Callable[[str], Blocked | None],
) -> bool:
    """Tell whether a queued run can never start, whatever ends.

    A blocked run is stuck when too many of those on in its group are; a run that is on is stuck
    when a run that it waits for is. What is left after all that can move has moved is stuck.
    """
    nodes: dict[str, tuple[Collection[str], int]] = {}
    """By run: whom it depends on, and how many of them must be stuck for it to be."""
    ahead = [start]
    while ahead:
        run_id = ahead.pop()
        if run_id in nodes:
            continue
        block = blocked(run_id)
        nodes[run_id] = (block.on, block.limit) if block else (waits_for(run_id), 1)
        ahead.extend(nodes[run_id][0])
    held = set(nodes)
    while free := {r for r in held if sum(d in held for d in nodes[r][0]) < nodes[r][1]}:
        held -= free
    return start in held

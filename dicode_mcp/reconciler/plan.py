"""Decides what has to change in the registry, from what was seen and what is there. No effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.registry import Entry
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.problems import Problem


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at one folder gave. Without ``task`` it cannot be put in force.

    ``conditions`` always hold a ``Ready``. ``waiting`` is what waits for an approval; ``approved``
    an older version that has one, for when none is in force. ``spoilt``: what is in force may not
    go on, since its files may be others than those that were approved.
    """

    id: str
    folder: Path
    task: Task | None
    conditions: tuple[Condition, ...]
    problems: tuple[Problem, ...] = ()
    waiting: Task | None = None
    approved: Task | None = None
    spoilt: bool = False
    covered: frozenset[str] | None = None
    """The hashes that are approved, where an approval is needed: nothing else may stay in force."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What a look at a source gave.

    ``looked`` are ids that were looked for; one that is not in ``seen`` is gone. ``whole``: the
    source was searched, so every other id is gone too, except below the ``unread`` folders.
    """

    source: str
    seen: Mapping[str, Seen]
    looked: frozenset[str] = frozenset()
    whole: bool = False
    unread: tuple[Path, ...] = ()


class Kind(Enum):
    """What an action does to its entry."""

    REGISTER = "register"
    UPDATE = "update"
    """Another version comes in force."""
    REFRESH = "refresh"
    """The same version; something else about it changed."""
    BREAK = "break"
    """What is written cannot be put in force; the entry keeps what was."""
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Action:
    """One change. ``mended``: what was broken is well again."""

    kind: Kind
    entry: Entry
    mended: bool = False

    @property
    def doubtful(self) -> bool:
        """Tell whether a file that is being written just now would look the same."""
        return self.kind in (Kind.BREAK, Kind.REMOVE)


def plan(desired: Desired, observed: Mapping[str, Entry]) -> tuple[Action, ...]:
    """Give what makes ``observed`` (the source's claims) equal to ``desired``, sorted by id."""
    actions = [
        action
        for seen in desired.seen.values()
        if (action := _put(desired.source, seen, observed.get(seen.id))) is not None
    ]
    actions += [
        Action(Kind.REMOVE, entry)
        for task_id, entry in observed.items()
        if task_id not in desired.seen and _gone(entry, desired)
    ]
    return tuple(sorted(actions, key=lambda action: action.entry.id))


def _put(source: str, seen: Seen, old: Entry | None) -> Action | None:
    if seen.task is None:
        entry = _broken(source, seen, old)
        return None if entry == old else Action(Kind.BREAK, entry)
    entry = Entry(seen.id, source, seen.folder, seen.task, seen.conditions, seen.problems)
    if entry == old:
        return None
    if old is None or old.task is None:
        return Action(Kind.REGISTER, entry)
    mended = entry.ready and not old.ready
    same = old.task.digest == seen.task.digest
    return Action(Kind.REFRESH if same else Kind.UPDATE, entry, mended)


def _broken(source: str, seen: Seen, old: Entry | None) -> Entry:
    if old is None or old.task is None or seen.spoilt or not _may_stay(seen, old.task):
        return Entry(
            seen.id,
            source,
            seen.folder,
            seen.approved,
            seen.conditions,
            seen.problems,
            kept=seen.approved is not None,
            waiting=seen.waiting,
        )
    of_the_version_in_force = [c for c in old.conditions if c.type is not ConditionType.READY]
    ready = [c for c in seen.conditions if c.type is ConditionType.READY]
    return replace(
        old,
        conditions=(*ready, *of_the_version_in_force),
        problems=seen.problems,
        kept=True,
        waiting=seen.waiting,
    )


def _may_stay(seen: Seen, task: Task) -> bool:
    return seen.covered is None or task.digest in seen.covered


def _gone(entry: Entry, desired: Desired) -> bool:
    if entry.id in desired.looked:
        return True
    return desired.whole and not any(
        entry.folder == unread or unread in entry.folder.parents for unread in desired.unread
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """Actions to take now, and since when (monotonic seconds) others are held back, by id."""

    actions: tuple[Action, ...]
    doubts: Mapping[str, float] = field(default_factory=dict[str, float])


def settle(
    actions: tuple[Action, ...],
    desired: Desired,
    doubts: Mapping[str, float],
    *,
    now: float,
    patience: float,
) -> Settled:
    """Hold doubtful actions back until they have been wanted for ``patience`` seconds.

    An editor that empties a file before it writes, or moves it away before it puts the new one in
    its place, is then never seen in the act.
    """
    held = {
        action.entry.id: doubts.get(action.entry.id, now) for action in actions if action.doubtful
    }
    held = {task_id: since for task_id, since in held.items() if now - since < patience}
    elsewhere = {
        task_id: since
        for task_id, since in doubts.items()
        if not desired.whole and task_id not in desired.seen and task_id not in desired.looked
    }
    taken = tuple(a for a in actions if not (a.doubtful and a.entry.id in held))
    return Settled(taken, {**elsewhere, **held})

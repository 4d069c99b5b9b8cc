"""Which tasks may run under one root, and whether a join's sources ever can, as it wants them.

Pure, and careful: what it calls impossible is impossible whatever the scripts do. A root is a run
that a trigger or a call starts; chains, failure chains and the SDK start further runs under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from dicode_mcp.runs.joins import Join

_ENDS = {
    "success": frozenset({"success"}),
    "failure": frozenset({"failure"}),
    "always": frozenset({"success", "failure"}),
}


@dataclass(frozen=True, slots=True)
class Link:
    """A way a task starts under another's root: after its end (``on``), or from its script."""

    source: str
    on: str | None = None


@dataclass(frozen=True, slots=True)
class Starters:
    """Who may start whom. ``anything`` start any task; ``by_any`` are started by any task."""

    links: Mapping[str, Sequence[Link]] = field(default_factory=dict[str, list[Link]])
    anything: frozenset[str] = frozenset()
    by_any: frozenset[str] = frozenset()

    def above(self, task_id: str) -> frozenset[str] | None:
        """Give the tasks under whose root one may run, itself included; None is all of them."""
        seen = {task_id}
        edge = [task_id]
        while edge:
            node = edge.pop()
            if node in self.by_any or self.anything:
                return None
            further = {link.source for link in self.links.get(node, ())} - seen
            seen |= further
            edge += further
        return frozenset(seen)

    def line(self, task_id: str) -> list[Link] | None:
        """Give the one way down to a task from its root, lowest first; None if there are more.

        A task with a line runs at most once under a root.
        """
        way: list[Link] = []
        seen = {task_id}
        while True:
            links = self.links.get(task_id, ())
            if task_id in self.by_any or self.anything or len(links) > 1:
                return None
            if not links:
                return way
            if links[0].on is None or links[0].source in seen:
                return None
            task_id = links[0].source
            seen.add(task_id)
            way.append(links[0])


def never_completes(join: Join, starters: Starters) -> str | None:
    """Say why a join can never come together, or None when it may."""
    return _no_common_root(join, starters) or _contradiction(join, starters)


def _common(sets: Sequence[frozenset[str]]) -> frozenset[str]:
    return reduce(lambda left, right: left & right, sets)


def _no_common_root(join: Join, starters: Starters) -> str | None:
    above = {source: starters.above(source) for source in join.sources}
    known = [found for found in above.values() if found is not None]
    if not known or _common(known):
        return None
    return (
        f"{' and '.join(join.sources)} never run under one root: no task leads to all of them;"
        " chain them from one task, or let one task that lists them in permissions.dicode.tasks"
        " start them; with join: any this task starts after each of them"
    )


def _contradiction(join: Join, starters: Starters) -> str | None:
    """Find a task that would have to end in two ways in its only run under the root."""
    wants: dict[str, list[tuple[str, str]]] = {}
    for source in join.sources:
        line = starters.line(source)
        if line is None:
            continue
        wants.setdefault(source, []).append((join.on, f"this join waits for on: {join.on} of it"))
        below = source
        for link in line:
            on = link.on or "always"
            wants.setdefault(link.source, []).append((on, f"{below} starts on: {on} of it"))
            below = link.source
    for task_id, wanted in wants.items():
        if not _common([_ENDS[on] for on, _ in wanted]):
            why = " and ".join(dict.fromkeys(text for _, text in wanted))
            return (
                f"{task_id} would have to end in success and in failure in one run: {why};"
                " set on: always where either end will do"
            )
    return None

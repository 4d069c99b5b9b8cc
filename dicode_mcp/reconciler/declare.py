"""What one source declares now: its sets resolved, and what stays of what was declared before.

Blocks; belongs to one thread. It reads no task's manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition
from dicode_mcp.protocols import Revision
from dicode_mcp.reconciler.world import DiskWorld, Places, SetFiles
from dicode_mcp.spec.taskset.documents import TaskSetDoc
from dicode_mcp.spec.taskset.resolution import (
    Broken,
    Declared,
    Resolution,
    Root,
    namespace_of,
)
from dicode_mcp.spec.taskset.resolve import resolve
from dicode_mcp.spec.taskset.world import Remote, Tree


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the source is. ``inline``: a set written in the configuration, not in a file.

    ``review``: the user wants to approve what it brings. ``url`` is set for git. ``tags`` are
    those that every task of it gets.
    """

    name: str
    namespace: str = ""
    url: str | None = None
    inline: TaskSetDoc | None = None
    review: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared, by id. ``held`` keep their last good version, for the fault given.

    ``lost`` are entries that never gave a task, ``troubles`` of the repositories asked for.
    """

    tasks: Mapping[str, Declared] = field(default_factory=dict[str, Declared])
    held: Mapping[str, Broken] = field(default_factory=dict[str, Broken])
    lost: Mapping[str, Broken] = field(default_factory=dict[str, Broken])
    resolution: Resolution = field(default_factory=Resolution)
    troubles: Mapping[Remote, Condition] = field(default_factory=dict[Remote, Condition])


class Declarer:
    """Resolves one source again and again."""

    def __init__(self, source: Identity, places: Places, clock: Clock) -> None:
        self._source = source
        self._places = places
        self._clock = clock
        self._files = SetFiles()
        self.now = Declaration()

    def resolve(self, revision: Revision, *, dev: bool) -> Declaration:
        """Resolve a revision; what a fault covers is kept as it was declared before."""
        now_ns = self._clock.now_ms() * 1_000_000
        world = DiskWorld(self._places, self._files, dev=dev, now_ns=now_ns)
        resolution = resolve(self._root(revision), world)
        self._files.keep(resolution.files)
        tasks = {declared.id: declared for declared in resolution.tasks}
        held = dict(_held(self.now.tasks.values(), tasks, resolution))
        holding = {broken.id for broken in held.values()}
        lost = {b.id: b for b in resolution.broken if b.id not in holding and b.id not in tasks}
        kept = {task_id: self.now.tasks[task_id] for task_id in held}
        unread = {
            d.id: d
            for d in self.now.tasks.values()
            if d.id not in tasks and d.id not in kept and _below(d.folder, resolution.unread)
        }
        self.now = Declaration(
            {**tasks, **kept, **unread}, held, lost, resolution, dict(world.troubles)
        )
        return self.now

    def _root(self, revision: Revision) -> Root:
        source, root = self._source, revision.root
        tree = Tree(
            root,
            revision.commit,
            confined=revision.commit is not None,
            trusted=not source.review,
            remote=Remote(source.url, trusted=True) if source.url and revision.commit else None,
            trees=revision.trees,
        )
        start = root / revision.start if revision.start else root
        fallback = source.name if source.url else root.name
        return Root(
            start,
            tree,
            source.namespace,
            namespace_of(start, root, fallback),
            source.inline,
            watched=source.inline is None and not (revision.start and revision.commit is None),
        )


def _held(
    before: Iterable[Declared], tasks: Mapping[str, Declared], resolution: Resolution
) -> Iterable[tuple[str, Broken]]:
    """Give what was declared before and is now covered by a fault."""
    by_id = {broken.id: broken for broken in resolution.broken}
    everything = next((b for b in resolution.broken if b.everything), None)
    for declared in before if by_id else ():
        if declared.id in tasks:
            continue
        broken = everything or next((by_id[i] for i in _around(declared.id) if i in by_id), None)
        if broken is not None:
            yield declared.id, broken


def _around(task_id: str) -> Iterable[str]:
    parts = task_id.split("/")
    return ("/".join(parts[:end]) for end in range(len(parts), 0, -1))


def _below(folder: Path, unread: Iterable[Path]) -> bool:
    return any(folder == above or above in folder.parents for above in unread)

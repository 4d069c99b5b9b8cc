"""Tells the checkouts which of them are in use, so that the others can go.

It asks the registry and the runs that are on; what is removed, and when, is the checkouts' matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.events import EventBus, RunChanged, SourceChanged, TasksChanged
from dicode_mcp.protocols import Checkouts
from dicode_mcp.reconciler.earlier import Approved
from dicode_mcp.registry import Registry
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.spec.model import Task

_REST_S = 5.0
"""Between two tellings: a burst of changes is one."""


class Keeper:
    """Keeps ``checkouts`` told while ``run`` runs.

    ``live`` gives the tasks of runs that are on, ``approved`` a task's approvals, newest first.
    """

    def __init__(
        self,
        checkouts: Checkouts,
        registry: Registry,
        live: Callable[[], Iterable[Task]],
        bus: EventBus,
        clock: Clock,
        approved: Approved = lambda task_id: (),
    ) -> None:
        self._checkouts = checkouts
        self._registry = registry
        self._live = live
        self._bus = bus
        self._clock = clock
        self._approved = approved

    async def run(self) -> None:
        """Tell after every change, until cancelled."""
        never = asyncio.Event()
        with self._bus.subscribe(kinds=(TasksChanged, SourceChanged, RunChanged)) as events:
            while True:
                event = await events.get()
                if isinstance(event, RunChanged) and not RunStatus(event.status).ended:
                    continue
                await self._clock.wait(never, _REST_S)
                if not self._registry.starting:
                    self._checkouts.keep(self.in_use())

    def in_use(self) -> frozenset[str]:
        """Give the commits in force and those of runs that are on, and the trees they lie in.

        And the commit that was approved last of each task: it may have to come in force again.
        """
        used: set[str] = set()
        for entry in self._registry.entries():
            used |= _names(entry.task) if entry.task else set()
            used |= {a.revision for a in self._approved(entry.id)[:1] if a.revision is not None}
        for task in self._live():
            used |= _names(task)
        for state in self._registry.source_states():
            if state.revision is not None and state.revision.commit is not None:
                used.add(state.revision.commit)
        return frozenset(used)


def _names(task: Task) -> set[str]:
    if task.revision is None:
        return set()
    return {task.revision, *_trees(task.folder)}


def _trees(folder: Path) -> set[str]:
    """Give what can be a tree's id in a path: a folder may stay in an older checkout."""
    return {part for part in folder.parts if len(part) == 40}

"""Keeps the conditions on notifications true: nobody delivers them, or one did not get through.

Notices themselves are made by the queue in the transaction that ends the run they are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dicode_mcp.conditions import Condition
from dicode_mcp.events import EventBus, RunChanged, TasksChanged
from dicode_mcp.registry import Registry
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.runs.notices import NoticeState
from dicode_mcp.telling import Notices, undelivered

OWNER = "notices"
_ENDED = frozenset(status.value for status in RunStatus if status.ended)


class Kept(Protocol):
    """What is asked of the store."""

    async def undelivered_notices(self) -> Mapping[str, NoticeState]:
        """Give what is known of the tasks whose last notice did not get through."""
        ...


class NoticeConditions:
    """Tells, as conditions, when people are not told what they should be."""

    def __init__(self, notices: Notices, registry: Registry, store: Kept, bus: EventBus) -> None:
        self._notices = notices
        self._registry = registry
        self._store = store
        self._bus = bus
        self._told: dict[str, Condition] = {}

    async def run(self) -> None:
        """Follow the registry and the runs that deliver until cancelled."""
        with self._bus.subscribe(kinds=(TasksChanged, RunChanged)) as changes:
            while True:
                await self.look()
                while not self._matters(await changes.get()):
                    pass

    def _matters(self, event: object) -> bool:
        if isinstance(event, RunChanged):
            return event.task_id == self._notices.delivers and event.status in _ENDED
        return True

    async def look(self) -> None:
        """Bring the conditions in line with the tasks in force and what got through."""
        states = dict(await self._store.undelivered_notices())
        faults = {} if self._registry.starting else self._notices.faults()
        wanted = {**undelivered(states, self._notices.delivers), **faults}
        for task_id in [known for known in self._told if known not in wanted]:
            del self._told[task_id]
            self._registry.set_conditions(task_id, OWNER, ())
        for task_id, condition in wanted.items():
            if self._told.get(task_id) != condition and self._registry.get(task_id) is not None:
                self._told[task_id] = condition
                self._registry.set_conditions(task_id, OWNER, [condition])

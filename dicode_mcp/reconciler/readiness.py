"""Writes to the log when a task that loaded is found not ready by another room, and when it mends.

What the reconciler itself finds is told by its own reporter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.events import EventBus, TasksChanged
from dicode_mcp.reconciler.report import one_line
from dicode_mcp.registry import Registry


class ReadinessLog:
    """Follows the registry; each distinct fault of a task is told once."""

    def __init__(
        self, registry: Registry, bus: EventBus, log: logging.Logger | None = None
    ) -> None:
        self._registry = registry
        self._bus = bus
        self._log = log or logging.getLogger("dicode.reconciler")
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        with self._bus.subscribe(kinds=(TasksChanged,)) as changes:
            self.look_at_all()
            lost = 0
            async for event in changes:
                if changes.lost != lost:
                    lost = changes.lost
                    self.look_at_all()
                elif isinstance(event, TasksChanged):
                    self.look(event.task_ids)

    def look_at_all(self) -> None:
        """Tell what changed of any task."""
        self.look({*self._told, *(entry.id for entry in self._registry.entries())})

    def look(self, task_ids: Iterable[str]) -> None:
        """Tell what changed of these tasks."""
        for task_id in sorted(task_ids):
            fault = self._fault(task_id)
            if fault is None:
                self._told.pop(task_id, None)
            elif fault and self._told.get(task_id) != fault:
                self._told[task_id] = fault
                self._say(logging.WARNING, task_id, "not_ready", f"not ready: {fault}")
            elif not fault and self._told.pop(task_id, None):
                self._say(logging.INFO, task_id, "mended", "mended")

    def _fault(self, task_id: str) -> str | None:
        """Give what another room says is wrong, empty when nothing is; None: not ours to tell."""
        entry = self._registry.get(task_id)
        claim = self._registry.claims(entry.source).get(task_id) if entry else None
        if entry is None or claim is None or not claim.ready:
            return None
        ready = find(entry.conditions, ConditionType.READY)
        return "" if ready is None or ready.status else one_line(ready.message or ready.reason)

    def _say(self, level: int, task_id: str, action: str, text: str) -> None:
        self._log.log(level, "task/%s %s", task_id, text, extra={"action": action, "task": task_id})

"""Keeps the conditions on webhooks true whose secret is in the store, or should be.

Whether a message is believed does not wait for this: that asks for the secret itself.
"""

from __future__ import annotations

from dicode_mcp.conditions import Condition
from dicode_mcp.events import EventBus, SecretChanged, TasksChanged
from dicode_mcp.registry import Registry
from dicode_mcp.triggers.webhook.keys import HookKeys

OWNER = "webhook secret"


class HookSecretConditions:
    """Tells, as conditions, which webhooks are not served for want of a secret."""

    def __init__(self, keys: HookKeys, registry: Registry, bus: EventBus) -> None:
        self._keys = keys
        self._registry = registry
        self._bus = bus
        self._told: dict[str, tuple[Condition, ...]] = {}

    async def run(self) -> None:
        """Follow the registry and the secrets until cancelled."""
        with self._bus.subscribe(kinds=(TasksChanged, SecretChanged)) as changes:
            while True:
                self.look()
                await changes.get()

    def look(self) -> None:
        """Bring the conditions in line with the tasks in force and the secrets there are."""
        wanted: dict[str, tuple[Condition, ...]] = {}
        for entry in self._registry.entries():
            if entry.task is not None and (missing := self._keys.missing(entry.task)):
                wanted[entry.id] = missing
        for task_id in {*self._told, *wanted}:
            now = wanted.get(task_id, ())
            if self._told.get(task_id, ()) != now:
                self._registry.set_conditions(task_id, OWNER, now)
        self._told = wanted

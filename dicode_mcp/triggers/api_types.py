"""The names that tasks have in ``/api/tasks/trigger``: who owns which, and who may be started.

A task's id is its own name there; one that it gives itself (``api.type``) has to be nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.events import EventBus, TasksChanged
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.spec.model import ApiSpec

OWNER = "api"


@dataclass(frozen=True, slots=True)
class Names:
    """Task ids by type, types by task id where they differ, and who lost a type to whom."""

    owners: Mapping[str, str] = field(default_factory=dict[str, str])
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    losers: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])


def assign(entries: Iterable[Entry], held: Mapping[str, str]) -> Names:
    """Decide who owns each type: the task of that id, else who held it, else the first by id."""
    known = {entry.id: _spec(entry) for entry in entries}
    wanted: dict[str, list[str]] = {}
    for task_id, spec in sorted(known.items()):
        if spec is not None and spec.type is not None and spec.type != task_id:
            wanted.setdefault(spec.type, []).append(task_id)
    owners: dict[str, str] = {}
    losers: dict[str, tuple[str, str]] = {}
    for name, claimants in wanted.items():
        holder = held.get(name)
        owner = name if name in known else holder if holder in claimants else claimants[0]
        if owner != name:
            owners[name] = owner
        losers |= {task_id: (name, owner) for task_id in claimants if task_id != owner}
    return Names(owners, {task_id: name for name, task_id in owners.items()}, losers)


def _spec(entry: Entry) -> ApiSpec | None:
    return entry.task.spec.api if entry.task else None


class ApiTypes:
    """Knows the names in force. ``run`` keeps the conditions on tasks that lost theirs."""

    def __init__(self, registry: Registry, bus: EventBus) -> None:
        self._registry = registry
        self._bus = bus
        self._names = Names()
        self._generation = -1
        self._told: dict[str, tuple[str, str]] = {}

    def resolve(self, name: str) -> Entry | None:
        """Give the task of a type: by the name it gave itself, else by its id."""
        return self._registry.get(self._now().owners.get(name, name))

    def type_of(self, task_id: str) -> str:
        """Give a task's name in the API; its id when it has no other."""
        return self._now().types.get(task_id, task_id)

    def triggerable(self) -> list[str]:
        """Give the types that may be started, sorted."""
        found = (e.id for e in self._registry.entries() if may_be_triggered(e))
        return sorted(self.type_of(task_id) for task_id in found)

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        with self._bus.subscribe(kinds=(TasksChanged,)) as changes:
            while True:
                self.look()
                await changes.get()

    def look(self) -> None:
        """Bring the conditions in line with the tasks in force now."""
        losers = self._now().losers
        for task_id in [known for known in self._told if known not in losers]:
            del self._told[task_id]
            self._registry.set_conditions(task_id, OWNER, ())
        for task_id, (name, owner) in losers.items():
            if self._told.get(task_id) != (name, owner):
                self._told[task_id] = (name, owner)
                self._registry.set_conditions(task_id, OWNER, (_conflict(name, owner),))

    def _now(self) -> Names:
        generation = self._registry.generation
        if generation != self._generation:
            self._names = assign(self._registry.entries(), self._names.owners)
            self._generation = generation
        return self._names


def may_be_triggered(entry: Entry) -> bool:
    """Tell whether a task's manifest lets programs start it over ``/api/tasks/trigger``."""
    spec = _spec(entry)
    return spec is not None and spec.trigger


def _conflict(name: str, owner: str) -> Condition:
    return Condition(
        ConditionType.CONFLICT,
        True,
        "ApiTypeTaken",
        f"api.type: '{name}' belongs to task '{owner}'; give one of the two another type."
        " Until then this task is named by its id there",
    )

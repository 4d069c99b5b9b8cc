"""Keeps the conditions on chained tasks true: cycles, and references to tasks that are not there.

Chained runs themselves are made by the queue in the transaction that ends the run before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from dicode_mcp.chains import Chains, Fault, FaultKind
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import DicodeError
from dicode_mcp.events import EventBus, TasksChanged
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.spec.files import read_text
from dicode_mcp.spec.loader import MANIFEST, parse_document
from dicode_mcp.spec.problems import KeyPath
from dicode_mcp.spec.yaml12 import MAX_BYTES

OWNER = "chain"

_RUNS_ALL_THE_SAME = frozenset({FaultKind.FAILURE_CHAIN_MISSING, FaultKind.FAILURE_CHAIN_ITSELF})


class ChainConditions:
    """Tells, as conditions, what is wrong with the chains of tasks."""

    def __init__(self, chains: Chains, registry: Registry, bus: EventBus) -> None:
        self._chains = chains
        self._registry = registry
        self._bus = bus
        self._told: dict[str, tuple[str, tuple[Fault, ...]]] = {}
        """By task: the version and its faults."""

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        with self._bus.subscribe(kinds=(TasksChanged,)) as changes:
            while True:
                await self.look()
                await changes.get()

    async def look(self) -> None:
        """Bring the conditions in line with the tasks in force now."""
        faults = self._chains.graph().faults
        for task_id in [known for known in self._told if known not in faults]:
            del self._told[task_id]
            self._registry.set_conditions(task_id, OWNER, ())
        for task_id, found in faults.items():
            entry = self._registry.get(task_id)
            if entry is None or entry.task is None:
                continue
            if self._told.get(task_id) != (entry.task.digest, found):
                self._told[task_id] = (entry.task.digest, found)
                await self._tell(entry, found)

    async def _tell(self, entry: Entry, faults: tuple[Fault, ...]) -> None:
        lines = await asyncio.to_thread(_lines, entry.folder, [fault.path for fault in faults])
        conditions = [
            self._condition(fault, line) for fault, line in zip(faults, lines, strict=True)
        ]
        self._registry.set_conditions(entry.id, OWNER, _joined(conditions))

    def _condition(self, fault: Fault, line: int | None) -> Condition:
        where = f"{MANIFEST}:{line}" if line else MANIFEST
        key = ".".join(str(part) for part in fault.path if isinstance(part, str))
        message = f"{where}: {key}: {fault.message}{self._nearest(fault)}"
        kind = ConditionType.READY
        if fault.kind in _RUNS_ALL_THE_SAME:
            kind = ConditionType.REFERENCES
        return Condition(kind, False, fault.kind.value, message)

    def _nearest(self, fault: Fault) -> str:
        if fault.ref is None:
            return ""
        near = self._registry.suggest(fault.ref)
        return f"; closest: {', '.join(near)}" if near else "; list_tasks shows the tasks there are"


def _joined(conditions: Iterable[Condition]) -> list[Condition]:
    """Make one condition of each type, since a reader shows one: the worst first, all told."""
    by_type: dict[ConditionType, list[Condition]] = {}
    for condition in sorted(conditions, key=lambda c: c.reason):
        by_type.setdefault(condition.type, []).append(condition)
    return [
        Condition(kind, False, group[0].reason, "\n".join(c.message for c in group))
        for kind, group in by_type.items()
    ]


def _lines(folder: Path, paths: Iterable[KeyPath]) -> list[int | None]:
    """Find the lines of keys in a folder's manifest; None for what stands elsewhere. Blocks."""
    try:
        document = parse_document(read_text(folder / MANIFEST, MANIFEST, max_bytes=MAX_BYTES))
    except DicodeError:
        return [None for _ in paths]
    found: list[int | None] = []
    for path in paths:
        tries = [path[:length] for length in range(len(path), 0, -1)]
        place = next((document.places[part] for part in tries if part in document.places), None)
        found.append(place.line if place else None)
    return found

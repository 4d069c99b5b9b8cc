"""Which tasks start when another ends: an index over the registry, rebuilt when that changes."""

from __future__ import annotations

from dicode_mcp.registry import Registry


class Chains:
    """Looks up chained tasks by the id of the task they follow."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._generation = -1
        self._downstream: dict[str, list[tuple[str, str]]] = {}

    def downstream_of(self, task_id: str) -> list[tuple[str, str]]:
        """Give the tasks chained to ``task_id`` as (id, ``on``), in order of id."""
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._downstream = self._index()
        return self._downstream.get(task_id, [])

    def _index(self) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for entry in self._registry.entries():
            chain = entry.task.spec.trigger.chain if entry.task else None
            if chain is None:
                continue
            for ref in chain.sources:
                upstream = self._registry.resolve(ref, near=entry.id)
                if upstream is not None:
                    found.setdefault(upstream.id, []).append((entry.id, chain.on))
        return found

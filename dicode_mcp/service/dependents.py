"""Which tasks name others: what a removal would leave without its task. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dicode_mcp.registry import Registry
from dicode_mcp.spec.model import Task


def dependents(registry: Registry, removed: Collection[str]) -> list[dict[str, Any]]:
    """Give each task that stays and names one that goes: ``{id, needs, by}``."""
    found: list[dict[str, Any]] = []
    for entry in registry.entries():
        if entry.task is None or entry.id in removed:
            continue
        for by, ref in _named(entry.task):
            target = registry.resolve(ref, near=entry.id)
            if target is not None and target.id in removed:
                found.append({"id": entry.id, "needs": target.id, "by": by})
    return found


def _named(task: Task) -> Iterator[tuple[str, str]]:
    """Give the key in the manifest and the task that it names."""
    spec = task.spec
    if spec.trigger.chain is not None:
        for ref in spec.trigger.chain.sources:
            yield "trigger.chain.from", ref
    if spec.on_failure_chain is not None and spec.on_failure_chain.task:
        yield "on_failure_chain", spec.on_failure_chain.task
    for env in spec.permissions.env:
        if env.source == "task" and env.key:
            yield "permissions.env", env.key
        if env.if_missing is not None:
            yield "permissions.env.if_missing", env.if_missing.task

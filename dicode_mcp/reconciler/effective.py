"""The manifest of a task as a source declares it: its own, and what is laid over it. Pure."""

from __future__ import annotations

from dataclasses import replace

from dicode_mcp.reconciler.inline import manifest_of
from dicode_mcp.spec.loader import Change
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.taskset.merge import Composed, compose
from dicode_mcp.spec.taskset.resolution import Declared
from dicode_mcp.spec.yaml12 import Document


def composed(declared: Declared, document: Document) -> Composed:
    """Lay what a source declares over a task's own manifest."""
    own = document if declared.inline is None else manifest_of(declared.inline)
    return compose(own, declared.layers)


def change_of(declared: Declared) -> Change | None:
    """Give what makes a folder's manifest the declared one; None when nothing is laid over it."""
    if declared.inline is None and not declared.layers:
        return None
    return lambda document: composed(declared, document).document


def tagged(task: Task, tags: tuple[str, ...]) -> Task:
    """Add tags that are no part of the task's content, and so not of its hash."""
    missing = tuple(tag for tag in tags if tag not in task.spec.tags)
    if not missing:
        return task
    spec = task.spec.model_copy(update={"tags": (*task.spec.tags, *missing)})
    return replace(task, spec=spec)

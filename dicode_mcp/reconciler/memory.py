"""What a look remembers of a folder, and when that still says what a declaration gives. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dicode_mcp.reconciler.plan import Seen
from dicode_mcp.spec.manifest import spec_json
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.taskset.resolution import Declared


@dataclass(frozen=True, slots=True)
class Memory:
    """What a folder held when it was last read, for one declaration.

    ``portable``: the same folder elsewhere gives the same task.
    """

    stamp: int | str | None
    seen: Seen
    declared: Declared
    portable: bool = False


def lines(declared: Declared) -> list[object]:
    """Give where the layers stand, which is no part of what makes two declarations equal."""
    own = declared.inline.places if declared.inline else None
    return [own, *(layer.patch.places for layer in declared.layers)]


def moved(memory: Memory, declared: Declared) -> bool:
    """Tell whether only the commit changed around a folder that is the same in both."""
    old = memory.declared
    return memory.portable and (old.layers, old.inline_data) == (
        declared.layers,
        declared.inline_data,
    )


def elsewhere(seen: Seen, declared: Declared) -> Seen:
    """Give the same task at its new commit."""
    task = seen.task
    assert task is not None
    script = declared.folder / task.script.name if task.script else None
    task = replace(task, folder=declared.folder, script=script, revision=declared.revision)
    return replace(seen, folder=declared.folder, task=task)


def names_place(task: Task, declared: Declared) -> bool:
    return str(declared.tree.root) in spec_json(task.spec)

"""The condition of a task that this machine cannot hold to all that its manifest says."""

from __future__ import annotations

from typing import Protocol

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.protocols import Launch, SandboxPolicy
from dicode_mcp.spec.model import Task


class Holding(Protocol):
    """Knows what launches are held to here."""

    def unheld(self, launch: Launch) -> tuple[str, ...]:
        """Say what a launch would not be held to on this machine."""
        ...


def unheld(task: Task, holding: Holding) -> tuple[Condition, ...]:
    """Say what the task's runs are not held to; in strict mode most of it refuses them.

    By the manifest alone, as a runtime may not be able to describe a run yet.
    """
    spec = task.spec
    policy = SandboxPolicy(spec.permissions, task.folder, task.folder, resources=spec.resources)
    launch = Launch(
        argv=(spec.runtime,),
        env={},
        cwd=task.folder,
        policy=policy,
        within_python=spec.runtime == "python",
    )
    found = holding.unheld(launch)
    if not found:
        return ()
    message = (
        f"this machine does not hold the task to all that it declares: {'; '.join(found)}. "
        "`dicode doctor` says what would make it"
    )
    return (Condition(ConditionType.ENFORCED, False, "NotHeld", message),)

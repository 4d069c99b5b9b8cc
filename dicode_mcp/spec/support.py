"""What a manifest may declare and this build does not act on yet, told as a condition.

One row per field: when a feature lands, its row goes.
"""

from __future__ import annotations

from collections.abc import Callable

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.spec.model import DicodeGrants, Task, TaskSpec

RUNTIMES_IN_FORCE = frozenset({"python"})
TRIGGERS_IN_FORCE = frozenset({"manual"})
GRANTS_IN_FORCE = frozenset({"tasks", "list_tasks", "get_runs"})

_UNENFORCED = "declared but not yet enforced by this build: the task can do more than it says"

Row = tuple[str, Callable[[TaskSpec], object], str]

TABLE: tuple[Row, ...] = (
    (
        "permissions.env[].secret",
        lambda s: any(entry.source == "secret" for entry in s.permissions.env),
        "this build has no secrets store: a run fails with secret_missing unless optional",
    ),
    (
        "permissions.env[].from: task",
        lambda s: any(entry.source == "task" for entry in s.permissions.env),
        "this build asks no provider tasks: a run fails with secret_missing unless optional",
    ),
    (
        "permissions.env[].if_missing",
        lambda s: any(entry.if_missing for entry in s.permissions.env),
        "the task is not started when the variable is missing",
    ),
    ("permissions.fs", lambda s: s.permissions.fs, _UNENFORCED),
    ("permissions.net", lambda s: s.permissions.net, _UNENFORCED),
    ("permissions.run", lambda s: s.permissions.run, _UNENFORCED),
    ("permissions.sys", lambda s: s.permissions.sys, _UNENFORCED),
    ("retry", lambda s: s.retry, "a failed run is not tried again"),
    ("concurrency", lambda s: s.concurrency, "runs of this task are not limited or ordered"),
    ("resources", lambda s: s.resources, "memory, cpu and processes are not limited"),
    ("runs_on", lambda s: s.runs_on, "every run is on this machine"),
    ("mcp_port", lambda s: s.mcp_port, "the task's MCP server is not reachable through this one"),
    (
        "mcp.expose",
        lambda s: s.mcp and s.mcp.expose,
        "the task is no tool of its own; use run_task",
    ),
    ("on_failure_chain", lambda s: s.on_failure_chain, "no task is started when this one fails"),
    ("notify", lambda s: s.notify, "no notification is sent"),
    ("output_schema", lambda s: s.output_schema, "the return value is not validated"),
    ("provider", lambda s: s.provider, "the task is not asked for secrets"),
    ("budget", lambda s: s.budget, "runs, cpu and tokens are not counted"),
    ("run_inputs", lambda s: s.run_inputs, "inputs are kept by the server's own rule"),
    ("auto_fix", lambda s: s.auto_fix and s.auto_fix.enabled, "failures are not repaired"),
)


def fields_not_in_force(spec: TaskSpec) -> list[tuple[str, str]]:
    """Give field and sentence of everything declared that has no effect on this build."""
    found: list[tuple[str, str]] = []
    if spec.runtime not in RUNTIMES_IN_FORCE:
        found.append(("runtime", f"this build does not run {spec.runtime} tasks"))
    if spec.trigger.kind not in TRIGGERS_IN_FORCE:
        kind = spec.trigger.kind
        found.append((f"trigger.{kind}", "this build starts no run by it; run_task works"))
    found += [(field, sentence) for field, declared, sentence in TABLE if declared(spec)]
    return found + _grants(spec.permissions.dicode)


def _grants(grants: DicodeGrants) -> list[tuple[str, str]]:
    return [
        (f"permissions.dicode.{name}", "this build refuses the call")
        for name in DicodeGrants.model_fields
        if name not in GRANTS_IN_FORCE and getattr(grants, name)
    ]


def not_in_force(task: Task) -> tuple[Condition, ...]:
    """Give the ``NotInForce`` condition of a task, when it declares what has no effect here."""
    fields = fields_not_in_force(task.spec)
    if not fields:
        return ()
    message = "; ".join(f"{field}: {sentence}" for field, sentence in fields)
    return (Condition(ConditionType.NOT_IN_FORCE, True, "NotBuilt", message),)

"""What a manifest may declare and this build does not act on yet, told as a condition.

One row per field: when a feature lands, its row goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.spec.model import DicodeGrants, Task, TaskSpec

RUNTIMES_IN_FORCE = frozenset({"python", "deno"})
TRIGGERS_IN_FORCE = frozenset({"manual", "cron", "chain", "daemon", "webhook"})
GRANTS_IN_FORCE = frozenset(
    {"tasks", "agents", "list_tasks", "get_runs", "runs_replay", "secrets_write"}
)

Row = tuple[str, Callable[[TaskSpec], object], str]

TABLE: tuple[Row, ...] = (
    (
        "permissions.sys",
        lambda s: s.permissions.sys,
        "of these only hostname is held: memory, load, processors and kernel version can be read "
        "by every task",
    ),
    ("runs_on", lambda s: s.runs_on, "every run is on this machine"),
    ("mcp_port", lambda s: s.mcp_port, "the task's MCP server is not reachable through this one"),
    (
        "mcp.expose",
        lambda s: s.mcp and s.mcp.expose,
        "the task is no tool of its own; use run_task",
    ),
    ("auto_fix", lambda s: s.auto_fix and s.auto_fix.enabled, "failures are not repaired"),
)


DENO_TABLE: Mapping[str, str | None] = {
    "permissions.sys": None,
}
"""Other sentences for Deno tasks, whose flags hold in part; None where they hold."""


def fields_not_in_force(spec: TaskSpec) -> list[tuple[str, str]]:
    """Give field and sentence of everything declared that has no effect on this build."""
    found: list[tuple[str, str]] = []
    if spec.runtime not in RUNTIMES_IN_FORCE:
        found.append(("runtime", f"this build does not run {spec.runtime} tasks"))
    if spec.trigger.kind not in TRIGGERS_IN_FORCE:
        kind = spec.trigger.kind
        found.append((f"trigger.{kind}", "this build starts no run by it; run_task works"))
    other: Mapping[str, str | None] = DENO_TABLE if spec.runtime == "deno" else {}
    for field, declared, sentence in TABLE:
        told = other.get(field, sentence)
        if told is not None and declared(spec):
            found.append((field, told))
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

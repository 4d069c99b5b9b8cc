"""The tool on what tasks use of their permissions. Every rule is in ``service``."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import Answer, Call, ToolDef

_STRING: s.Schema = {"type": "string"}
_FINDINGS: s.Schema = {"type": "array", "items": {"type": "object"}}


async def suggest_permissions(call: Call, args: dict[str, Any]) -> Answer:
    """Give the smallest permissions that the last runs of a task got along with."""
    return Answer(await call.services.permissions.suggest(call.principal, args["id"]))


TOOLS = (
    ToolDef(
        name="suggest_permissions",
        title="Suggest permissions",
        description=(
            "Give the smallest permissions block for a task, as YAML to paste into its task.yaml, "
            "from what its last 20 runs used and were refused. add: refused, and a run failed; "
            "wider: declared and not used, with what to write instead; refused: not proposed, and "
            "why; unseen: what cannot be judged. Nothing is changed: show the diff to the user."
        ),
        input_schema=s.arguments({"id": s.TASK_ID}, "id"),
        output_schema=s.shape(
            {
                "task": _STRING,
                "runs": {"type": "integer", "description": "runs that were seen"},
                "judged": {
                    "type": "integer",
                    "description": "those that tell what is not needed",
                },
                "permissions": _STRING,
                "diff": {"type": "string", "description": "declared against suggested"},
                "add": _FINDINGS,
                "wider": _FINDINGS,
                "refused": _FINDINGS,
                "unseen": {"type": "object"},
                "note": _STRING,
            },
            "task",
            "runs",
            "permissions",
            "diff",
            "add",
            "wider",
        ),
        annotations=t.ToolAnnotations(
            title="Suggest permissions",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="tasks",
        verb="read",
        handler=suggest_permissions,
    ),
)

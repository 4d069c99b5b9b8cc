"""The tool on the server itself."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import Answer, Call, ToolDef


async def get_status(call: Call, args: dict[str, Any]) -> Answer:
    """Show the server."""
    return Answer(await call.services.status.get(call.principal))


TOOLS = (
    ToolDef(
        name="get_status",
        title="Show the server",
        description=(
            "Show the server's state: version, uptime, tasks by state, runs of the last 24 hours "
            "by status, slots in use, which runtimes work on this machine, and whether permissions "
            "are enforced by a sandbox. Use it when runs do not start or a runtime is missing; "
            "list_tasks and get_runs have the details."
        ),
        input_schema=s.arguments({}),
        output_schema=s.STATUS,
        annotations=t.ToolAnnotations(
            title="Show the server",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="status",
        verb="read",
        handler=get_status,
    ),
)

"""The tools on sources. They translate arguments and results; every rule is in ``service``."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import Answer, Call, ToolDef


async def list_sources(call: Call, args: dict[str, Any]) -> Answer:
    """List sources."""
    return Answer(await call.services.sources.list(call.principal))


async def sync_source(call: Call, args: dict[str, Any]) -> Answer:
    """Bring a source to its newest state."""
    return Answer(await call.services.sources.sync(call.principal, args["source"]))


TOOLS = (
    ToolDef(
        name="list_sources",
        title="List sources",
        description=(
            "List where tasks come from: folders and git repositories, with the revision in force, "
            "the number of tasks and conditions. Use it to learn which folder to edit and to see "
            "why tasks of a source are missing (condition Synced=False, problems) or broken "
            "(condition TasksReady=False, broken: the first of them with their errors). Files of a "
            "local source are watched: an edit is live at once, no call is needed."
        ),
        input_schema=s.arguments({}),
        output_schema=s.SOURCES,
        annotations=t.ToolAnnotations(
            title="List sources",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="sources",
        verb="read",
        handler=list_sources,
    ),
    ToolDef(
        name="sync_source",
        title="Sync a source",
        description=(
            "Fetch a source now and put its newest good state in force, instead of waiting for the "
            "watch or the next poll. Returns the source when that pass is done; list_tasks then "
            "shows the tasks. What cannot be fetched or loaded keeps its last good version."
        ),
        input_schema=s.arguments(
            {"source": s.text("Name of the source as list_sources gives it.")}, "source"
        ),
        output_schema=s.SOURCE,
        annotations=t.ToolAnnotations(
            title="Sync a source",
            read_only_hint=False,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=True,
        ),
        toolset="sources",
        verb="run",
        handler=sync_source,
    ),
)

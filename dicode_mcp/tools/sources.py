"""The tools on sources. They translate arguments and results; every rule is in ``service``."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import Answer, Call, ToolDef

SOURCE_NAME = s.text("Name of the source as list_sources gives it.")


async def list_sources(call: Call, args: dict[str, Any]) -> Answer:
    """List sources."""
    return Answer(await call.services.sources.list(call.principal))


async def sync_source(call: Call, args: dict[str, Any]) -> Answer:
    """Bring a source to its newest state."""
    source = await call.services.sources.sync(
        call.principal,
        args["source"],
        commit=args.get("commit"),
        unpin=args.get("unpin", False),
    )
    return Answer(source)


async def switch_dev_mode(call: Call, args: dict[str, Any]) -> Answer:
    """Switch dev mode of a source."""
    source = await call.services.dev_mode.switch(
        call.principal,
        args["source"],
        enabled=args["enabled"],
        local_path=args.get("local_path"),
        branch=args.get("branch"),
    )
    return Answer(source)


TOOLS = (
    ToolDef(
        name="list_sources",
        title="List sources",
        description=(
            "List where tasks come from: folders and git repositories, with the revision in force, "
            "the number of tasks and conditions. Use it to learn which folder to edit and to see "
            "why tasks of a source are missing (Synced=False, problems, off) or broken "
            "(TasksReady=False, broken: the first of them with their errors). Files of a local "
            "source are watched: an edit is live at once, no call is needed."
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
            "shows the tasks. What cannot be fetched or loaded keeps its last good version. Roll "
            "a git source back with commit: it stays there, over restarts, until unpin: true makes "
            "it follow its branch again."
        ),
        input_schema=s.arguments(
            {
                "source": SOURCE_NAME,
                "commit": s.text(
                    "Full id (40 hex digits) of the commit to stay at; git sources only.",
                    max_length=40,
                ),
                "unpin": {"type": "boolean", "description": "true: follow the branch again."},
            },
            "source",
        ),
        output_schema=s.brief(s.SOURCE),
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
    ToolDef(
        name="switch_dev_mode",
        title="Switch dev mode",
        description=(
            "Let a source show other files than its own for a while. local_path: a folder (or a "
            "taskset.yaml) on the server's machine, watched, so that an edit is live when saved. "
            "branch: a working clone of that branch, for write_task_file and commit_task; a branch "
            "the remote lacks begins at the source's own, and calling again brings the clone up to "
            "date. Neither: only the dev_refs of its TaskSets are used. enabled false goes back to "
            "the source's own files at once. It survives restarts. Runs that are on go on with "
            "what they started with. Returns the source; dev.folder is where its files are."
        ),
        input_schema=s.arguments(
            {
                "source": SOURCE_NAME,
                "enabled": {"type": "boolean", "description": "true: on or elsewhere; false: off."},
                "local_path": s.text(
                    'Absolute path on the server\'s machine, e.g. "/srv/my-tasks".',
                    max_length=4096,
                ),
                "branch": s.text('Branch of the git source, e.g. "fix/report".', max_length=200),
            },
            "source",
            "enabled",
        ),
        output_schema=s.brief(s.SOURCE),
        annotations=t.ToolAnnotations(
            title="Switch dev mode",
            read_only_hint=False,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=True,
        ),
        toolset="sources",
        verb="author",
        handler=switch_dev_mode,
    ),
)

"""The tools on tasks. They translate arguments and results; every rule is in ``service``."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import Answer, Call, ToolDef
from dicode_mcp.tools.sizes import LARGE, SMALL, fit_page

DEFAULT_LIMIT = 50


async def list_tasks(call: Call, args: dict[str, Any]) -> Answer:
    """List tasks."""

    async def fetch(limit: int) -> dict[str, Any]:
        return await call.services.tasks.list(
            call.principal,
            query=args.get("query"),
            tag=args.get("tag"),
            source=args.get("source"),
            status=args.get("status"),
            limit=limit,
            cursor=args.get("cursor"),
        )

    limit = args.get("limit", DEFAULT_LIMIT)
    return Answer(await fit_page(fetch, "tasks", limit, LARGE if "limit" in args else SMALL))


async def get_task(call: Call, args: dict[str, Any]) -> Answer:
    """Show one task."""
    task = await call.services.tasks.get(
        call.principal, args["id"], explain=args.get("explain", False)
    )
    return Answer(task)


async def validate_task(call: Call, args: dict[str, Any]) -> Answer:
    """Check a task without putting it in force."""
    verdict = await call.services.tasks.validate(
        call.principal, task_id=args.get("id"), path=args.get("path"), text=args.get("text")
    )
    return Answer(verdict)


async def set_task_enabled(call: Call, args: dict[str, Any]) -> Answer:
    """Pause a task or end its pause."""
    task = await call.services.tasks.set_enabled(
        call.principal, args["id"], args["enabled"], args.get("reason", "")
    )
    return Answer(task)


TOOLS = (
    ToolDef(
        name="list_tasks",
        title="List tasks",
        description=(
            "List the tasks this server has in force, and those that failed to load, with their "
            "errors. Call it first, to find task ids and what is broken; get_task shows one task "
            "whole. Each task has id, description, runtime, trigger, enabled, conditions, next_run "
            "and last_run. A condition Ready=False says what is wrong with the file; the last good "
            "version, if any, stays in force (kept). Pages of 50: pass next_cursor as cursor for "
            "more."
        ),
        input_schema=s.arguments(
            {
                "query": s.text(
                    'Words that all occur in id, name, description or tags, e.g. "slack report".'
                ),
                "tag": s.text("Only tasks with this tag."),
                "source": s.text("Only tasks of this source; list_sources names them."),
                "status": {
                    "type": "string",
                    "enum": [
                        "ready",
                        "broken",
                        "pending_approval",
                        "unavailable",
                        "conflict",
                        "paused",
                    ],
                    "description": (
                        "Only tasks in this state; pending_approval: what is written waits for a "
                        "human (approve_task); unavailable: this machine lacks its runtime; "
                        "conflict: another task owns its id or webhook path."
                    ),
                },
                "limit": s.LIMIT,
                "cursor": s.CURSOR,
            }
        ),
        output_schema=s.TASKS,
        annotations=t.ToolAnnotations(
            title="List tasks",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="tasks",
        verb="read",
        handler=list_tasks,
    ),
    ToolDef(
        name="get_task",
        title="Show a task",
        description=(
            "Show one task whole: its manifest in force (spec, with the params it takes), content "
            "hash, folder on the server's machine, conditions, next and last run, and every "
            "problem of its file with file and line. Call it before run_task to learn the "
            "parameters, and after an edit to see whether the new version is in force (hash "
            "changes) or refused "
            "(problems). With explain, origins tells for each value of spec whether task.yaml, a "
            "set's defaults or an override decided it, with file and line: that is the line to "
            "edit. Values of secrets are never part of it."
        ),
        input_schema=s.arguments(
            {
                "id": s.TASK_ID,
                "explain": s.flag(
                    "Also say, under origins, which file and line each value of spec has.",
                    False,
                ),
            },
            "id",
        ),
        output_schema=s.TASK,
        annotations=t.ToolAnnotations(
            title="Show a task",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="tasks",
        verb="read",
        handler=get_task,
    ),
    ToolDef(
        name="validate_task",
        title="Check a task",
        description=(
            "Check a task's manifest and script without putting anything in force or running it. "
            "Give exactly one of id (a task of this server, read from its folder as it is now), "
            "path (absolute path of a task folder on the server's machine) or text (a task.yaml). "
            "Returns valid and all problems at once, each with file, line, key path, message and "
            "hint. Use it before saving an edit; list_tasks shows what is in force."
        ),
        input_schema=s.arguments(
            {
                "id": s.TASK_ID,
                "path": s.text('Absolute folder path, e.g. "/srv/tasks/hello".', max_length=4096),
                "text": s.text("The text of a task.yaml.", max_length=1024 * 1024),
            }
        ),
        output_schema=s.VERDICT,
        annotations=t.ToolAnnotations(
            title="Check a task",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="tasks",
        verb="read",
        handler=validate_task,
    ),
    ToolDef(
        name="set_task_enabled",
        title="Pause or resume a task",
        description=(
            "Pause a task, or end its pause. A paused task takes no new run from any trigger or "
            "caller until it is enabled again; runs that are on go on (cancel_run ends one). The "
            "pause is stored by the server and survives restarts; files stay untouched. Returns "
            "the task; its condition Paused says who paused it and why."
        ),
        input_schema=s.arguments(
            {
                "id": s.TASK_ID,
                "enabled": {
                    "type": "boolean",
                    "description": "false pauses the task, true ends the pause.",
                },
                "reason": s.text("Why, for whoever finds the task paused.", max_length=500),
            },
            "id",
            "enabled",
        ),
        output_schema=s.brief(s.TASK),
        annotations=t.ToolAnnotations(
            title="Pause or resume a task",
            read_only_hint=False,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="tasks",
        verb="author",
        handler=set_task_enabled,
    ),
)

"""The tools on what is past. They translate arguments and results; rules are in ``service``."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.clock import parse_iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import Answer, Call, ToolDef

DEFAULT_LIMIT = 50

_STRING: s.Schema = {"type": "string"}
_INTEGER: s.Schema = {"type": "integer"}
_TALLY: s.Schema = {
    "runs": _INTEGER,
    "failures": _INTEGER,
    "by_status": {"type": "object", "additionalProperties": _INTEGER},
    "p50_ms": _INTEGER,
    "p95_ms": _INTEGER,
    "duration_ms": _INTEGER,
    "cpu_ms": _INTEGER,
    "tokens": _INTEGER,
}
STATS = s.shape(
    {
        "since": _STRING,
        "until": _STRING,
        "stats": {
            "type": "array",
            "items": s.shape({"task": _STRING, "day": _STRING, **_TALLY}, "task", "day", "runs"),
        },
        "totals": {"type": "object", "description": "the same sums over all that match"},
        "more": _STRING,
    },
    "stats",
    "totals",
)
PRUNED = s.shape(
    {
        "dry_run": {"type": "boolean"},
        "runs": _INTEGER,
        "bytes": _INTEGER,
        "tasks": {
            "type": "array",
            "items": s.shape(
                {
                    "task": _STRING,
                    "runs": _INTEGER,
                    "bytes": _INTEGER,
                    "oldest": _STRING,
                    "newest": _STRING,
                },
                "task",
                "runs",
            ),
        },
        "more_tasks": _INTEGER,
        "done": {"type": "boolean"},
        "next": _STRING,
    },
    "dry_run",
    "runs",
    "done",
)
PINNED = s.shape(
    {"run_id": _STRING, "task": _STRING, "status": _STRING, "pinned": {"type": "boolean"}},
    "run_id",
    "pinned",
)


async def get_stats(call: Call, args: dict[str, Any]) -> Answer:
    """Sum up runs by task and day."""
    return Answer(
        await call.services.history.stats(
            call.principal,
            task=args.get("task"),
            since_ms=_epoch_ms("since", args.get("since")),
            until_ms=_epoch_ms("until", args.get("until")),
            limit=args.get("limit", DEFAULT_LIMIT),
        )
    )


async def prune(call: Call, args: dict[str, Any]) -> Answer:
    """Let go of old runs, or say which ones."""
    return Answer(
        await call.services.history.prune(
            call.principal,
            dry_run=args["dry_run"],
            task=args.get("task"),
            older_than=args.get("older_than"),
        )
    )


async def pin_run(call: Call, args: dict[str, Any]) -> Answer:
    """Keep a run, or no longer."""
    return Answer(
        await call.services.history.pin(call.principal, args["run_id"], args.get("pinned", True))
    )


def _epoch_ms(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_iso(text)
    except ValueError:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"'{name}' must be an ISO 8601 time or date",
            hint="for example 2026-05-01",
        ) from None


TOOLS = (
    ToolDef(
        name="get_stats",
        title="Sum up runs",
        description=(
            "Count ended runs by task and UTC day: runs, failures, p50 and p95 duration (within "
            "5 %), CPU time and tokens, and totals. Use it to see trends, slow or failing tasks, "
            "or cost. The sums stay when runs are pruned. The last seven days by default."
        ),
        input_schema=s.arguments(
            {
                "task": s.text("Only this task id."),
                "since": s.text("First day, e.g. 2026-05-01.", max_length=64),
                "until": s.text("Last day; today if left out.", max_length=64),
                "limit": s.whole("Most rows, newest day first.", 1, 500, DEFAULT_LIMIT),
            }
        ),
        output_schema=STATS,
        annotations=t.ToolAnnotations(
            title="Sum up runs",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="runs",
        verb="read",
        handler=get_stats,
    ),
    ToolDef(
        name="prune",
        title="Delete old runs",
        description=(
            "Delete old runs with their logs and values, now: by the retention rules (they also "
            "work by themselves), or those that ended longer ago than older_than. Call it with "
            "dry_run true first: it tells how many runs of which tasks would go, and their bytes. "
            "Never deletes unfinished or pinned runs, or sums of get_stats. Cannot be undone. "
            "When done is false, call again."
        ),
        input_schema=s.arguments(
            {
                "dry_run": {"type": "boolean", "description": "Only tell what would go."},
                "task": s.text("Only this task id."),
                "older_than": s.text('A duration such as "7d" or "12h".', max_length=64),
            },
            "dry_run",
        ),
        output_schema=PRUNED,
        annotations=t.ToolAnnotations(
            title="Delete old runs",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="runs",
        verb="admin",
        handler=prune,
    ),
    ToolDef(
        name="pin_run",
        title="Keep a run",
        description=(
            "Keep a run with its log and values whatever the retention says, or with pinned false "
            "no longer. Use it for a run that is evidence, or one to replay later."
        ),
        input_schema=s.arguments(
            {"run_id": s.RUN_ID, "pinned": s.flag("False lets it go again.", True)}, "run_id"
        ),
        output_schema=PINNED,
        annotations=t.ToolAnnotations(
            title="Keep a run",
            read_only_hint=False,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="runs",
        verb="run",
        handler=pin_run,
    ),
)

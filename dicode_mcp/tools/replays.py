"""The tool that starts a run again. It translates; every rule is in ``service/replays``."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.service.replays import Edit
from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.asking import waited
from dicode_mcp.tools.registry import Answer, Call, ToolDef
from dicode_mcp.tools.runs import DEFAULT_WAIT_S, MAX_WAIT_S
from dicode_mcp.tools.sizes import fit_run


async def replay_run(call: Call, args: dict[str, Any]) -> Answer:
    """Start a run again and wait for it a while, as ``run_task`` does."""
    edit = Edit(args.get("params") or {}, (args["input"],) if "input" in args else None)
    run = await call.services.replays.replay(
        call.principal, args["run_id"], edit, idempotency_key=args.get("idempotency_key")
    )
    told = run["replay"]
    run = await waited(call, run, args.get("wait_seconds", DEFAULT_WAIT_S), series=True)
    return fit_run({**run, "replay": told})


TOOLS = (
    ToolDef(
        name="replay_run",
        title="Replay a run",
        description=(
            "Start a run's task again, by its version in force, with the params, input and "
            "request of that run, or edited ones. Use it to repeat a webhook or chain after "
            "mending the task; replay tells whether the task changed since. Refused when the "
            "input was not kept. Waits and answers as run_task does."
        ),
        input_schema=s.arguments(
            {
                "run_id": s.RUN_ID,
                "params": {"type": "object", "description": "Parameters to change, by name."},
                "input": {"description": "Any JSON value instead of the run's input."},
                "wait_seconds": s.whole(
                    "How long to wait for the end.", 0, MAX_WAIT_S, DEFAULT_WAIT_S
                ),
                "idempotency_key": s.text("As in run_task.", max_length=256),
            },
            "run_id",
        ),
        output_schema=s.brief(s.RUN),
        annotations=t.ToolAnnotations(
            title="Replay a run",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=False,
            open_world_hint=True,
        ),
        toolset="runs",
        verb="run",
        handler=replay_run,
    ),
)

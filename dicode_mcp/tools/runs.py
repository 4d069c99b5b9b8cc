"""The tools on runs. They translate arguments and results; every rule is in ``service``."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.clock import parse_iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.tools import missing
from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.asking import RUN, waited
from dicode_mcp.tools.jobs import Job
from dicode_mcp.tools.registry import Answer, Call, ToolDef
from dicode_mcp.tools.run_jobs import is_over, job_of
from dicode_mcp.tools.sizes import LARGE, SMALL, fit_lines, fit_page, fit_run

DEFAULT_LIMIT = 50
DEFAULT_LINES = 200
DEFAULT_WAIT_S = 30
MAX_WAIT_S = 55
JOB_WAIT_S = 0.5
"""A run that ends so soon is answered at once also to a client that takes jobs."""


async def run_task(call: Call, args: dict[str, Any]) -> Answer | Job:
    """Start a run and wait for it a while; losing the caller never ends the run.

    A client that takes jobs waits less: it asks about the job, whose id is the run's.
    """
    # Started by an earlier round of this call, which then had something to ask.
    earlier = call.client.recall(RUN)
    if earlier is None:
        run = await _started(call, args)
    else:
        run = await call.services.runs.get(call.principal, earlier)
    seconds = args.get("wait_seconds", DEFAULT_WAIT_S)
    if not call.takes_jobs:
        return fit_run(await waited(call, run, seconds, series=True))
    job_id = run["run_id"]
    run = await waited(call, run, min(seconds, JOB_WAIT_S), put=False, series=True)
    return fit_run(run) if is_over(run) else job_of(run, job_id)


async def get_run(call: Call, args: dict[str, Any]) -> Answer:
    """Show one run, after waiting for its end if asked."""
    shown = {"tree": args.get("tree", False), "given": args.get("given", False)}
    run = await call.services.runs.get(call.principal, args["run_id"], **shown)
    seconds = args.get("wait_seconds", 0)
    if seconds > 0 and not RunStatus(run["status"]).ended:
        run = await waited(call, run, seconds)
        if any(shown.values()):
            run = await call.services.runs.get(call.principal, args["run_id"], **shown)
    return fit_run(run)


async def get_runs(call: Call, args: dict[str, Any]) -> Answer:
    """List runs."""
    since = args.get("since")
    since_ms = None if since is None else _epoch_ms("since", since)

    async def fetch(limit: int) -> dict[str, Any]:
        return await call.services.runs.list(
            call.principal,
            task=args.get("task"),
            status=args.get("status"),
            since_ms=since_ms,
            limit=limit,
            cursor=args.get("cursor"),
        )

    limit = args.get("limit", DEFAULT_LIMIT)
    return Answer(await fit_page(fetch, "runs", limit, LARGE if "limit" in args else SMALL))


async def get_logs(call: Call, args: dict[str, Any]) -> Answer:
    """Give lines of a run's log."""
    if "after" in args and "tail" in args:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "get_logs: give 'after' or 'tail', not both",
            hint="tail gives the newest lines; after goes on from a line you have seen",
        )
    logs = await call.services.runs.logs(
        call.principal,
        args["run_id"],
        after=args.get("after", 0),
        tail=args.get("tail"),
        level=args.get("level"),
        limit=args.get("limit", DEFAULT_LINES),
    )
    budget = LARGE if {"limit", "tail"} & args.keys() else SMALL
    return Answer(fit_lines(logs, budget, newest="tail" in args))


async def cancel_run(call: Call, args: dict[str, Any]) -> Answer:
    """End a run."""
    return fit_run(await call.services.runs.cancel(call.principal, args["run_id"]))


async def _started(call: Call, args: dict[str, Any]) -> dict[str, Any]:
    """Start a run; what is missing is asked of the user, if the client passes questions on."""
    try:
        return await _start(call, args, args.get("params"))
    except DicodeError as refusal:
        question = missing.question(args["id"], refusal)
        if question is None or not call.client.can(question):
            raise
        reply = (await call.client.ask({"params": question}))["params"]
        params = missing.completed(args.get("params") or {}, reply)
        if params is None:
            raise
    return await _start(call, args, params)


async def _start(call: Call, args: dict[str, Any], params: Any) -> dict[str, Any]:
    return await call.services.runs.start(
        call.principal,
        args["id"],
        params=params,
        input=args.get("input"),
        idempotency_key=args.get("idempotency_key"),
        priority=args.get("priority"),
    )


def _epoch_ms(name: str, text: str) -> int:
    try:
        return parse_iso(text)
    except ValueError:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"'{name}' must be an ISO 8601 time",
            hint="for example 2026-05-01T00:00:00Z",
        ) from None


_READS = {
    "read_only_hint": True,
    "destructive_hint": False,
    "idempotent_hint": True,
    "open_world_hint": False,
}

TOOLS = (
    ToolDef(
        name="run_task",
        title="Run a task",
        description=(
            "Run a task now and return its result, or the run's id while it is still on. Check "
            "get_task for the params first: unknown, missing or wrong ones are refused before a "
            "run exists, all named at once. Waits up to wait_seconds; if the status is then "
            "queued or running, call get_run with the run_id; if waiting, it asks the user "
            "something (question): answer_run. The run never depends on this "
            "call: cancelling it or losing the connection does not end the run (cancel_run does). "
            "Returns status, return_value, output, the last log lines and, for a failure, error "
            "with file and line and the next useful call. What a task does is up to the task: "
            "read it first."
        ),
        input_schema=s.arguments(
            {
                "id": s.TASK_ID,
                "params": {
                    "type": "object",
                    "description": 'Parameters by name, e.g. {"city": "Oslo"}; see get_task.',
                },
                "input": {"description": "Any JSON value, given to the task as its input."},
                "wait_seconds": s.whole(
                    "How long to wait for the end; 0 answers at once.",
                    0,
                    MAX_WAIT_S,
                    DEFAULT_WAIT_S,
                ),
                "priority": s.whole(
                    "Higher starts first when slots are short; the task's own by default.",
                    -100,
                    100,
                ),
                "idempotency_key": s.text(
                    "Same key and task within 24 h: the same run, not a second one.",
                    max_length=256,
                ),
            },
            "id",
        ),
        output_schema=s.RUN,
        annotations=t.ToolAnnotations(
            title="Run a task",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=False,
            open_world_hint=True,
        ),
        toolset="runs",
        verb="run",
        handler=run_task,
    ),
    ToolDef(
        name="get_runs",
        title="List runs",
        description=(
            "List runs, newest first, with status, times, reason and error, without return values "
            "and logs. Use it to find failures or the history of a task; get_run shows one run "
            "whole. Pages of 50: pass next_cursor as cursor for more."
        ),
        input_schema=s.arguments(
            {
                "task": s.text("Only runs of this task id."),
                "status": {
                    "type": "string",
                    "enum": s.RUN_STATUSES,
                    "description": "Only runs in this status.",
                },
                "since": s.text(
                    "Only runs made at or after this ISO 8601 time, e.g. 2026-05-01T00:00:00Z.",
                    max_length=64,
                ),
                "limit": s.LIMIT,
                "cursor": s.CURSOR,
            }
        ),
        output_schema=s.RUNS,
        annotations=t.ToolAnnotations(title="List runs", **_READS),
        toolset="runs",
        verb="read",
        handler=get_runs,
    ),
    ToolDef(
        name="get_run",
        title="Show a run",
        description=(
            "Show one run: status, return_value, output, times, the last 20 log lines. Use it "
            "after run_task returned before the end; with wait_seconds it waits for the end or a "
            "question (status waiting). For a "
            "failure, error names the message, the task's file and line, and next says which call "
            "helps most. A return value too long for the answer is left out "
            "(return_value_truncated); read the linked resource dicode://runs/{run_id} for it."
        ),
        input_schema=s.arguments(
            {
                "run_id": s.RUN_ID,
                "wait_seconds": s.whole(
                    "How long to wait for the end if the run is still on.", 0, MAX_WAIT_S, 0
                ),
                "tree": s.flag("Add every run under its root: chains, attempts, children.", False),
                "given": s.flag("Add the params and input it began with, secrets left out.", False),
            },
            "run_id",
        ),
        output_schema=s.brief(s.RUN),
        annotations=t.ToolAnnotations(title="Show a run", **_READS),
        toolset="runs",
        verb="read",
        handler=get_run,
    ),
    ToolDef(
        name="get_logs",
        title="Read a run's log",
        description=(
            "Read the log of a run, also while it is on. Without arguments: from the first line. "
            "tail gives the newest lines (best after a failure); after goes on from a line seen "
            "before, and next_after is set when there is more. level leaves out what is less "
            "severe. Lines over 2,000 characters are cut with a mark; the resource "
            "dicode://runs/{run_id}/logs has them whole."
        ),
        input_schema=s.arguments(
            {
                "run_id": s.RUN_ID,
                "after": s.whole("Lines after this seq.", 0, 2**53 - 1),
                "tail": s.whole("Only the last so many lines.", 1, 1000),
                "level": {
                    "type": "string",
                    "enum": s.LOG_LEVELS,
                    "description": "Only this level and above.",
                },
                "limit": s.whole("Most lines on this page.", 1, 1000, DEFAULT_LINES),
            },
            "run_id",
        ),
        output_schema=s.LOGS,
        annotations=t.ToolAnnotations(title="Read a run's log", **_READS),
        toolset="runs",
        verb="read",
        handler=get_logs,
    ),
    ToolDef(
        name="cancel_run",
        title="Cancel a run",
        description=(
            "End a run that is queued or running: its whole process tree gets TERM and, after 5 "
            "seconds, KILL. Use it for a run that hangs or was started by mistake; "
            "set_task_enabled stops a task from starting again. Returns the run, usually with "
            "status cancelled; work already done is not undone. A run that has ended is given as "
            "it is."
        ),
        input_schema=s.arguments({"run_id": s.RUN_ID}, "run_id"),
        output_schema=s.SAME_RUN,
        annotations=t.ToolAnnotations(
            title="Cancel a run",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="runs",
        verb="run",
        handler=cancel_run,
    ),
)

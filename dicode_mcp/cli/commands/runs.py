"""Commands on runs that exist: ``runs`` and ``cancel``, and how a run is shown."""

from __future__ import annotations

import argparse
import re
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.commands.tasks import PAGE, check_limit, pages
from dicode_mcp.cli.render import Terminal, clean, clock_time, duration, one_line, relative, table
from dicode_mcp.cli.session import Session
from dicode_mcp.clock import Clock, iso, parse_iso

ENDED = frozenset({"success", "failure", "timeout", "cancelled", "skipped", "lost"})
GOOD = frozenset({"success", "skipped"})
_COLOURS = {"success": "green", "failure": "red", "timeout": "red", "lost": "red"}
_SPAN = re.compile(r"(\d+)([smhd])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TAIL = 10


def list_runs(session: Session, args: argparse.Namespace) -> int:
    """Show runs as a table, newest first; with ``--tree`` those that one run led to.

    With ``--given`` what one run began with.
    """
    if args.tree:
        return tree(session, args.tree)
    if args.given:
        return given(session, args.given)
    check_limit(args.limit)
    terminal = session.terminal
    wanted = {
        "task": args.task,
        "status": args.status,
        "since": read_since(args.since, terminal.clock),
        "cursor": args.cursor,
    }
    if session.as_json:
        limit = min(args.limit or 50, PAGE)
        terminal.show_json(session.call("get_runs", limit=limit, **wanted))
        return failures.OK
    runs, more = pages(session, "get_runs", "runs", args.limit or 20, **wanted)
    if not runs:
        terminal.note("no runs" + (f" of {args.task}" if args.task else "") + " match")
        return failures.OK
    rows = [_row(run, terminal.clock) for run in runs]
    headers = ["RUN", "TASK", "STATUS", "BY", "STARTED", "TOOK", "ERROR"]
    for line in table(headers, rows, terminal.width):
        terminal.say(line)
    if more:
        terminal.note(f"more: --limit N for more at once, or --cursor {more}")
    return failures.OK


def read_since(text: str | None, clock: Clock) -> str | None:
    """Read an ISO 8601 time or a span back from now (``90s 30m 2h 7d``) as ISO 8601."""
    if text is None:
        return None
    span = _SPAN.fullmatch(text)
    if span:
        return iso(clock.now_ms() - int(span[1]) * _UNIT_MS[span[2]])
    try:
        return iso(parse_iso(text))
    except ValueError:
        raise failures.usage(
            "--since is neither a time nor a span",
            "for example --since 2h, or --since 2026-01-31T08:00:00Z",
        ) from None


def _row(run: dict[str, Any], clock: Clock) -> list[str]:
    took = run.get("duration_ms")
    error = cast("dict[str, Any]", run.get("error") or {})
    question = cast("dict[str, Any]", run.get("question") or {})
    asks = f"asks: {question['message']}" if question else ""
    return [
        str(run["run_id"]),
        str(run.get("task", "")),
        str(run.get("status", "")),
        str(run.get("trigger", "")),
        relative(run.get("started_at") or run.get("created_at"), clock),
        duration(took) if isinstance(took, int) else "-",
        place(error) + str(error.get("message") or asks or run.get("reason") or ""),
    ]


def place(error: dict[str, Any]) -> str:
    """Give ``file:line `` of a run's error, or nothing."""
    if not error.get("file"):
        return ""
    return f"{error['file']}:{error['line']} " if error.get("line") else f"{error['file']} "


def cancel(session: Session, args: argparse.Namespace) -> int:
    """End a run; shows how it stands afterwards."""
    run = session.call("cancel_run", run_id=args.run)
    if session.as_json:
        session.terminal.show_json(run)
    else:
        session.terminal.say(f"run {run.get('run_id', args.run)} is {run.get('status', '?')}")
    return failures.OK


def headline(terminal: Terminal, run: dict[str, Any]) -> str:
    """Say in a line how a run stands."""
    status = str(run.get("status", "?"))
    took = run.get("duration_ms")
    text = f"run {run['run_id']} of {run.get('task', '?')}: "
    text += terminal.style(status, _COLOURS.get(status, "yellow"))
    if isinstance(took, int):
        text += f" after {duration(took)}"
    if run.get("reason"):
        text += f" ({run['reason']})"
    return text


def is_over(run: dict[str, Any]) -> bool:
    """Tell whether a run has ended, and no attempt follows it."""
    return run.get("status") in ENDED and "next_attempt" not in run


def note_next(terminal: Terminal, run: dict[str, Any]) -> str:
    """Say that a run is tried again; gives the id of the next attempt."""
    following = cast("dict[str, Any]", run["next_attempt"])
    terminal.note(headline(terminal, run))
    when = relative(following.get("not_before"), terminal.clock)
    start = "" if when == "-" else f", {when}"
    run_id = str(following["run_id"])
    terminal.note(f"tried again as run {run_id} (attempt {following['attempt']}{start})")
    return run_id


def tree(session: Session, run_id: str) -> int:
    """Show every run under the root of one: what each led to below it."""
    run = session.call("get_run", run_id=run_id, tree=True)
    terminal = session.terminal
    found = cast("list[dict[str, Any]]", run.get("tree", []))
    if session.as_json:
        terminal.show_json({"tree": found, "tree_truncated": bool(run.get("tree_truncated"))})
        return failures.OK
    depths: dict[str, int] = {}
    for branch in found:
        depth = depths.get(str(branch.get("parent_run_id")), -1) + 1
        depths[str(branch["run_id"])] = depth
        mark = " *" if branch["run_id"] == run_id else ""
        terminal.say("  " * depth + _branch(terminal, branch) + mark)
    if run.get("tree_truncated"):
        terminal.note(f"these are the first {len(found)} runs; `dicode runs TASK` has the others")
    return failures.OK


def given(session: Session, run_id: str) -> int:
    """Show what a run began with, as JSON: ``{params?, input?, request?}`` or why it is not."""
    run = session.call("get_run", run_id=run_id, given=True)
    session.terminal.show_json(cast("dict[str, Any]", run.get("given", {})))
    return failures.OK


def _branch(terminal: Terminal, branch: dict[str, Any]) -> str:
    status = str(branch["status"])
    took = branch.get("duration_ms")
    again = f", attempt {branch['attempt']}" if branch.get("attempt", 1) != 1 else ""
    text = f"{clean(str(branch['task']))} {terminal.style(status, _COLOURS.get(status, 'yellow'))}"
    text += f" ({branch['reason']})" if branch.get("reason") else ""
    text += f" after {duration(took)}" if isinstance(took, int) else ""
    return f"{text}  {branch['run_id']} by {branch['trigger']}{again}"


def show_end(terminal: Terminal, run: dict[str, Any], *, with_logs: bool) -> None:
    """Show a run that ended: its value on standard output, all else on standard error."""
    lines = cast("list[dict[str, Any]]", run.get("logs_tail", []))
    if with_logs:
        for line in lines:
            terminal.note(log_text(terminal, line))
    terminal.note(headline(terminal, run))
    if run.get("status") not in GOOD:
        _show_failure(terminal, run)
        return
    _show_output(terminal, run)
    if "return_value" in run:
        _show_value(terminal, run["return_value"])


def _show_value(terminal: Terminal, value: Any) -> None:
    if isinstance(value, str):
        terminal.say(clean(value))
    else:
        terminal.show_json(value)


def _show_output(terminal: Terminal, run: dict[str, Any]) -> None:
    output = run.get("output")
    if not isinstance(output, dict):
        return
    shown = cast("dict[str, Any]", output)
    body = str(shown.get("body", ""))
    if shown.get("kind") == "text":
        terminal.say(clean(body))
    else:
        name = f" {shown['name']}" if shown.get("name") else ""
        terminal.note(
            f"output:{name} {shown.get('content_type', '?')}, {len(body)} characters"
            " (--json has it)"
        )


def _show_failure(terminal: Terminal, run: dict[str, Any]) -> None:
    error = cast("dict[str, Any]", run.get("error") or {})
    if error:
        message = clean(str(error.get("message", error.get("code", ""))))
        terminal.note(terminal.style(f"  {place(error)}{message}", "red"))
    if error.get("hint"):
        terminal.note(f"  {one_line(str(error['hint']))}")
    if run.get("status") in ENDED:
        terminal.note(f"next: dicode logs {run['run_id']} · dicode get {run.get('task', 'TASK')}")
    else:
        terminal.note(f"next: dicode logs -f {run['run_id']}")


def log_text(terminal: Terminal, line: dict[str, Any]) -> str:
    """Write one log line."""
    level = str(line.get("level", "info"))
    style = {"error": "red", "security": "red", "warn": "yellow", "debug": "dim"}.get(level)
    moment = terminal.style(clock_time(line.get("ts")), "dim")
    label = terminal.style(f"{level:<5}", style) if style else f"{level:<5}"
    return f"{moment} {label} {clean(str(line.get('message', '')))}"

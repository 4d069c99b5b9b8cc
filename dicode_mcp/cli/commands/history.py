"""Commands on what is past: ``stats``, ``prune`` and ``pin``."""

from __future__ import annotations

import argparse
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.commands.runs import read_since
from dicode_mcp.cli.commands.tasks import check_limit
from dicode_mcp.cli.render import Terminal, duration, relative, table
from dicode_mcp.cli.session import Session

_SIZES = ("B", "kB", "MB", "GB", "TB")


def stats(session: Session, args: argparse.Namespace) -> int:
    """Show sums by task and day, and their totals."""
    check_limit(args.limit)
    terminal = session.terminal
    found = session.call(
        "get_stats",
        task=args.task,
        since=read_since(args.since, terminal.clock),
        until=args.until,
        limit=args.limit,
    )
    if session.as_json:
        terminal.show_json(found)
        return failures.OK
    days = cast("list[dict[str, Any]]", found["stats"])
    if not days:
        terminal.note(f"no run ended from {found['since']} to {found['until']}")
        return failures.OK
    rows = [[str(day["day"]), str(day["task"]), *_numbers(day)] for day in days]
    rows.append(["total", "", *_numbers(found["totals"])])
    headers = ["DAY", "TASK", "RUNS", "FAILED", "P50", "P95", "CPU"]
    for line in table(headers, rows, terminal.width, flexible=1):
        terminal.say(line)
    if found.get("more"):
        terminal.note(f"more: {found['more']}")
    return failures.OK


def _numbers(tally: dict[str, Any]) -> list[str]:
    spans = [tally.get(name) for name in ("p50_ms", "p95_ms", "cpu_ms")]
    shown = [duration(ms) if isinstance(ms, int) else "-" for ms in spans]
    return [str(tally["runs"]), str(tally["failures"]), *shown]


def prune(session: Session, args: argparse.Namespace) -> int:
    """Delete old runs, or show which ones would go."""
    total: dict[str, Any] = {}
    while not total.get("done"):
        found = session.call(
            "prune", dry_run=args.dry_run, task=args.task, older_than=args.older_than
        )
        total = _added(total, found)
        if args.dry_run:
            break
    if session.as_json:
        session.terminal.show_json(total)
    else:
        _show_pruned(session.terminal, total)
    return failures.OK


def _added(total: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Add up what several calls let go of; each names the tasks it met."""
    if not total:
        return found
    tasks = {item["task"]: dict(item) for item in total["tasks"]}
    for item in found["tasks"]:
        known = tasks.setdefault(item["task"], {**item, "runs": 0, "bytes": 0})
        known["runs"] += item["runs"]
        known["bytes"] += item["bytes"]
        known["newest"] = item.get("newest")
    return {
        **found,
        "runs": total["runs"] + found["runs"],
        "bytes": total["bytes"] + found["bytes"],
        "tasks": sorted(tasks.values(), key=lambda item: -item["runs"]),
    }


def _show_pruned(terminal: Terminal, found: dict[str, Any]) -> None:
    tasks = cast("list[dict[str, Any]]", found["tasks"])
    if tasks:
        rows = [
            [
                str(item["task"]),
                str(item["runs"]),
                size(item["bytes"]),
                relative(item.get("oldest"), terminal.clock),
                relative(item.get("newest"), terminal.clock),
            ]
            for item in tasks
        ]
        for line in table(
            ["TASK", "RUNS", "SIZE", "OLDEST", "NEWEST"], rows, terminal.width, flexible=0
        ):
            terminal.say(line)
    if found.get("more_tasks"):
        terminal.note(f"and {found['more_tasks']} tasks more")
    verb = "would go" if found["dry_run"] else "are deleted"
    terminal.say(f"{found['runs']} runs {verb}, {size(found['bytes'])}")
    if not found["done"]:
        terminal.note(str(found.get("next", "there is more")))


def size(number: float) -> str:
    """Write a number of bytes with the unit that fits."""
    for unit in _SIZES:
        if number < 1000 or unit == _SIZES[-1]:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.0f} B"


def pin(session: Session, args: argparse.Namespace) -> int:
    """Keep a run, or let it go again."""
    run = session.call("pin_run", run_id=args.run, pinned=not args.off)
    if session.as_json:
        session.terminal.show_json(run)
    elif run.get("pinned"):
        session.terminal.say(f"run {run['run_id']} stays until `dicode pin {run['run_id']} --off`")
    else:
        session.terminal.say(f"run {run['run_id']} goes when retention says so")
    return failures.OK

"""Commands on sources: ``source list sync dev``."""

from __future__ import annotations

import argparse
import os
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.commands.tasks import problem_lines, troubles
from dicode_mcp.cli.render import Terminal, one_line, table
from dicode_mcp.cli.session import Session

CLONE_SECONDS = 300.0
"""How long making a clone may take."""


def list_sources(session: Session, args: argparse.Namespace) -> int:
    """Show the sources as a table, what is wrong with them below it."""
    result = session.call("list_sources")
    if session.as_json:
        session.terminal.show_json(result)
        return failures.OK
    sources = cast("list[dict[str, Any]]", result.get("sources", []))
    if not sources:
        session.terminal.note("no sources; name a folder with `dicode serve --source PATH`")
        return failures.OK
    _show(session.terminal, sources)
    return failures.OK


def sync(session: Session, args: argparse.Namespace) -> int:
    """Read a source again; exit code 1 when what it holds cannot all be put in force."""
    follow: dict[str, Any] = {"commit": args.commit} if args.commit else {}
    if args.unpin:
        follow["unpin"] = True
    source = session.call("sync_source", source=args.name, **follow)
    if session.as_json:
        session.terminal.show_json(source)
    else:
        _show(session.terminal, [source])
    return failures.OK if _state(source) == "ok" else failures.FAILED


def dev(session: Session, args: argparse.Namespace) -> int:
    """Switch dev mode; exit code 1 when what is then shown cannot all be put in force."""
    path = os.path.abspath(os.path.expanduser(args.local_path)) if args.local_path else None
    wanted = {
        "source": args.name,
        "enabled": not args.disable,
        "local_path": path,
        "branch": args.branch,
    }
    with session.connect() as client:
        given = {key: value for key, value in wanted.items() if value is not None}
        source = client.call("switch_dev_mode", given, waits=CLONE_SECONDS)
    if session.as_json:
        session.terminal.show_json(source)
    else:
        session.terminal.say(_dev_line(source))
        _show(session.terminal, [source])
    return failures.OK if _state(source) == "ok" else failures.FAILED


def _dev_line(source: dict[str, Any]) -> str:
    name = source["name"]
    if not source.get("dev_mode"):
        return f"{name}: dev mode is off; it shows its own files again"
    shown = cast("dict[str, Any]", source.get("dev") or {})
    folder = shown.get("folder")
    if not folder:
        return f"{name}: dev mode is on; dev_refs are used where there are any"
    branch = f" (branch {shown['branch']})" if shown.get("branch") else ""
    if shown.get("new_branch"):
        branch = f" (new branch {shown['branch']}; the remote gets it with the first commit)"
    return one_line(f"{name}: dev mode is on; it shows {folder}{branch}")


def _show(terminal: Terminal, sources: list[dict[str, Any]]) -> None:
    headers = ["SOURCE", "TYPE", "STATE", "TASKS", "REVISION", "WHERE"]
    for line in table(headers, [_row(source) for source in sources], terminal.width):
        terminal.say(line)
    for source in sources:
        for line in [*troubles(source, terminal), *_broken(source), *problem_lines(source)]:
            terminal.say(f"{source['name']}: {line}")


def _broken(source: dict[str, Any]) -> list[str]:
    """Write a line for each broken task shown, how to see the others, and what is switched off."""
    broken = cast("list[dict[str, Any]]", source.get("broken", []))
    lines = [one_line(f"{task.get('id')}: {task.get('message')}") for task in broken]
    rest = int(source.get("broken_count", 0)) - len(broken)
    if broken and rest > 0:
        lines.append(f"and {rest} more: dicode list --source {source['name']} --status broken")
    off = cast("list[dict[str, Any]]", source.get("off", []))
    lines += [one_line(f"{entry.get('id')} is not taken: {entry.get('message')}") for entry in off]
    return lines


def _row(source: dict[str, Any]) -> list[str]:
    dev = " (dev)" if source.get("dev_mode") else ""
    return [
        str(source["name"]),
        str(source.get("type", "")) + dev,
        _state(source),
        str(source.get("tasks", "-")),
        str(source.get("revision", "-"))[:10] + (" (pinned)" if source.get("pinned") else ""),
        _where(source),
    ]


def _where(source: dict[str, Any]) -> str:
    shown = cast("dict[str, Any]", source.get("dev") or {})
    return str(shown.get("folder") or source.get("path") or source.get("url") or "")


def _state(source: dict[str, Any]) -> str:
    conditions = cast("list[dict[str, Any]]", source.get("conditions", []))
    bad = [_told(c, source) for c in conditions if str(c.get("status")) == "False"]
    return ", ".join(bad) or "ok"


def _told(condition: dict[str, Any], source: dict[str, Any]) -> str:
    if condition["type"] == "TasksReady":
        return f"{source.get('broken_count', 'some')} broken"
    return f"not {condition['type']}"

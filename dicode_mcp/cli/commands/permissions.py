"""The command on what tasks use of their permissions: ``permissions suggest``."""

from __future__ import annotations

import argparse
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.render import one_line
from dicode_mcp.cli.session import Session


def suggest(session: Session, args: argparse.Namespace) -> int:
    """Write the suggested block, or the change to it, on standard output; the rest beside it."""
    found = session.call("suggest_permissions", id=args.id)
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(found)
        return failures.OK
    text = str(found["diff"]) if args.diff else str(found["permissions"])
    for line in text.splitlines():
        terminal.say(line)
    for line in _notes(found):
        terminal.note(one_line(line))
    return failures.OK


def _notes(found: dict[str, Any]) -> list[str]:
    count = found["runs"]
    lines = [f"from {count} run{'' if count == 1 else 's'} of {found['task']}"]
    lines += [f"add (refused, and a run failed): {_shown(each)}" for each in _list(found, "add")]
    for each in _list(found, "wider"):
        instead = each.get("instead")
        lines.append(f"not used: {each['line']}" + (f"; write {instead}" if instead else ""))
    lines += [f"not proposed: {_shown(each)} ({each['why']})" for each in _list(found, "refused")]
    unseen = cast("dict[str, str]", found.get("unseen") or {})
    lines += [f"not judged: permissions.{name} ({why})" for name, why in unseen.items()]
    return [*lines, *([str(found["note"])] if found.get("note") else [])]


def _shown(finding: dict[str, Any]) -> str:
    absent = ", not there" if finding.get("exists") is False else ""
    return f"{finding['line']}{absent}"


def _list(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", found.get(name) or [])

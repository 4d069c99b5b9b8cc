"""``task approve``: shows what waits for an approval, and asks whoever sits at the terminal.

The server asks (elicitation); this side only passes its question on. The review goes to standard
error, so that what a command prints stays its result.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, cast
from urllib.parse import quote

from dicode_mcp.cli import failures
from dicode_mcp.cli.render import Terminal, clean, facts, one_line
from dicode_mcp.cli.session import Session

_YES = {"y", "yes"}


def approve(session: Session, args: argparse.Namespace) -> int:
    """Approve the version that waits for a task."""
    task = session.call("get_task", id=args.id)
    terminal = session.terminal
    pending = _pending(session, task)
    if not pending:
        terminal.note(one_line(f"no version of {task['id']} waits for an approval"))
        return failures.OK if task.get("hash", "").startswith(args.hash or "") else failures.FAILED
    digest = str(pending["hash"])
    if args.hash and not digest.startswith(args.hash):
        raise failures.usage(
            f"what waits for {task['id']} is version {digest}, not {args.hash}",
            f"review it: dicode task approve {task['id']}",
        )
    if not _somebody_there():
        raise failures.usage(
            "an approval is a human's, and nobody is at this terminal",
            f"run `dicode task approve {task['id']}` where you can be asked",
        )
    if not _approved(session, task, pending):
        terminal.note(one_line(f"{task['id']} was not approved"))
        return failures.FAILED
    terminal.say(one_line(f"{task['id']} is approved: version {digest[:12]} is in force"))
    return failures.OK


def approve_version(session: Session, task_id: str, digest: str) -> bool:
    """Ask about one version, where somebody can be asked; tells whether it was approved."""
    if not _somebody_there():
        return False
    task = session.call("get_task", id=task_id)
    pending = _pending(session, task)
    return pending.get("hash") == digest and _approved(session, task, pending)


def _pending(session: Session, task: dict[str, Any]) -> dict[str, Any]:
    """Give the version that waits, whole; a server that cannot shows what get_task has room for."""
    shortened = cast("dict[str, Any]", task.get("pending") or {})
    if not shortened:
        return {}
    with session.connect() as client:
        try:
            whole = client.read(f"dicode://tasks/{quote(str(task['id']), safe='')}/pending")
        except failures.ToolFailed:
            return shortened
    return whole if whole.get("hash") else shortened


def _somebody_there() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _approved(session: Session, task: dict[str, Any], pending: dict[str, Any]) -> bool:
    terminal = session.terminal
    for line in _review(task, pending, terminal):
        terminal.note(line)
    changes = cast("dict[str, Any]", pending.get("changes") or {})
    missing = _not_shown(changes)
    if missing:
        terminal.note(terminal.style(f"not shown: {missing}", "bold"))
    question = "Approve without having seen all? [y/N] " if missing else "Approve? [y/N] "

    def ask(form: dict[str, Any]) -> dict[str, Any]:
        # The server's question says in a row what was shown above.
        del form
        terminal.err.write(question)
        terminal.err.flush()
        said = sys.stdin.readline().strip().lower()
        if said in _YES:
            return {"action": "accept", "content": {"approve": True}}
        return {"action": "decline"}

    arguments = {"id": task["id"], "hash": pending["hash"]}
    with session.connect() as client:
        return bool(client.call("approve_task", arguments, ask=ask).get("approved"))


def _review(task: dict[str, Any], pending: dict[str, Any], terminal: Terminal) -> list[str]:
    changes = cast("dict[str, Any]", pending.get("changes") or {})
    lines = [
        terminal.style(one_line(f"{task['id']}: version {pending['hash']}"), "bold"),
        "It may:",
        *_facts(pending.get("grants")),
    ]
    for name, title in (("grants", "New in what it may do:"), ("settings", "Other settings:")):
        if task.get("kept") and changes.get(name):
            lines += [title, *_facts(changes[name])]
    for file in cast("list[dict[str, Any]]", changes.get("files") or []):
        lines.append(terminal.style(one_line(f"{file['change']} {file['path']}"), "bold"))
        lines += [f"  {line}" for line in clean(str(file.get("diff", ""))).splitlines()]
        lines += _lack(file)
    if changes.get("uncovered"):
        names = ", ".join(str(name) for name in changes["uncovered"])
        lines.append(one_line(f"no part of the hash, and not shown: {names}"))
    if changes.get("note"):
        lines.append(one_line(str(changes["note"])))
    return lines


def _facts(value: object) -> list[str]:
    return [clean(line) for line in facts(cast("dict[str, Any]", value or {}), "  ")]


def _lack(file: dict[str, Any]) -> list[str]:
    if file.get("binary"):
        return ["  (not text)"]
    if file.get("diff_left_out"):
        return ["  (not shown: no room)"]
    return ["  (cut here: no room)"] if file.get("diff_cut") else []


def _not_shown(changes: dict[str, Any]) -> str:
    """Say how much of the changes the server had no room for; empty when it is all there."""
    left = cast("dict[str, int]", changes.get("left_out") or {})
    told: list[str] = []
    if left.get("diffs"):
        told.append(
            f"{left.get('characters', 0)} characters (about) in the differences of"
            f" {left['diffs']} files"
        )
    if left.get("names"):
        told.append(f"{left['names']} more files, not even named")
    # An older server says only that it was cut.
    return ", ".join(told) or ("parts of the files" if changes.get("truncated") else "")

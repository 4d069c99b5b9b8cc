"""Commands on others' tasks: ``task install update uninstall``."""

from __future__ import annotations

import argparse
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.commands.approvals import approve_version
from dicode_mcp.cli.commands.tasks import problem_lines
from dicode_mcp.cli.render import Terminal, clean, facts, one_line
from dicode_mcp.cli.session import Session
from dicode_mcp.clock import Clock, parse_iso

FETCH_SECONDS = 300.0
"""How long fetching repositories may take."""
_PENDING = "pending_approval"


def install(session: Session, args: argparse.Namespace) -> int:
    """Install a task; on a terminal ask for its approval, else say how to give it."""
    wanted = {
        "task": args.task,
        "as": args.key,
        "set": _values(args.set),
        "source": args.source,
        "path": args.path,
        "branch": args.branch,
        "tag": args.tag,
        "commit": args.commit,
    }
    given = {name: value for name, value in wanted.items() if value}
    with session.connect() as client:
        made = client.call("install_task", given, waits=FETCH_SECONDS)
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(made)
        return failures.OK
    terminal.say(one_line(f"Added {made['entry']} to {made['taskset']}"))
    if made.get("url"):
        terminal.say(" " + one_line(f"{made['url']}@{made['ref']}"))
    else:
        terminal.say(" " + one_line(str(made.get("path"))))
    terminal.say()
    for line in problem_lines(made):
        terminal.note(line)
    return _settle(session, cast("list[dict[str, Any]]", made["tasks"]))


def update(session: Session, args: argparse.Namespace) -> int:
    """Show what a newer version changes and, unless ``--dry-run``, pin it."""
    wanted: dict[str, Any] = {"id": args.id, "commit": args.commit, "tag": args.tag}
    given = {name: value for name, value in wanted.items() if value}
    if args.dry_run:
        given["dry_run"] = True
    with session.connect() as client:
        moved = client.call("update_task", given, waits=FETCH_SECONDS)
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(moved)
        return failures.OK
    tasks = cast("list[dict[str, Any]]", moved.get("tasks", []))
    if moved["status"] == "up_to_date":
        at = str(moved.get("to", ""))[:12]
        terminal.say(one_line(f"{moved['entry']} is up to date ({moved['url']} {at})"))
        if moved.get("note"):
            terminal.say(one_line(str(moved["note"])))
        return _settle(session, tasks) if tasks else failures.OK
    _show_move(terminal, moved)
    for task in tasks:
        _show_change(terminal, task)
    for line in problem_lines(moved):
        terminal.note(line)
    terminal.say()
    if moved["status"] == "available":
        terminal.say(f"Nothing was changed. To take it: dicode task update {moved['id']}")
        return failures.OK
    return _settle(session, tasks)


def uninstall(session: Session, args: argparse.Namespace) -> int:
    """Take an entry out of its TaskSet."""
    gone = session.call("uninstall_task", id=args.id)
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(gone)
        return failures.OK
    terminal.say(one_line(f"Removed {gone['entry']} from {gone['file']}"))
    if not gone.get("installed"):
        terminal.say("It was an entry of your own:")
        terminal.say(clean(str(gone["removed"])).rstrip("\n"))
    if gone.get("warning"):
        terminal.note(one_line(str(gone["warning"])))
    return failures.OK


def _values(words: list[str]) -> dict[str, str]:
    """Read ``params.x=y`` words."""
    values: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise failures.usage(
                "--set wants params.NAME=VALUE", "for example --set params.check_url=https://…"
            )
        values[name] = value
    return values


def _show_move(terminal: Terminal, moved: dict[str, Any]) -> None:
    before, after = str(moved.get("from", ""))[:12], str(moved.get("to", ""))[:12]
    terminal.say(one_line(f"{moved['entry']}: {moved['url']} {before} -> {after}"))
    log = cast("dict[str, Any]", moved.get("log") or {})
    if log:
        told = f" {log.get('subject', '')} ({log.get('author', '')}, {log.get('time', '')})"
        terminal.say(" " + one_line(told))
    for other in cast("list[dict[str, Any]]", moved.get("repositories", [])):
        terminal.say(one_line(f"{other['url']}@{other['ref']} {str(other['commit'])[:12]}"))


def _show_change(terminal: Terminal, task: dict[str, Any]) -> None:
    terminal.say()
    terminal.say(terminal.style(one_line(f"{task['id']}: {task.get('change', '')}"), "bold"))
    for line in problem_lines(task):
        terminal.say(f"  {line}")
    changes = cast("dict[str, Any]", task.get("changes") or {})
    told = {key: changes[key] for key in ("grants", "settings", "note") if changes.get(key)}
    for line in facts(told, "  "):
        terminal.say(line)
    for file in cast("list[dict[str, Any]]", changes.get("files", [])):
        binary = "(binary)" if file.get("binary") else ""
        terminal.say("  " + one_line(f"{file.get('change')} {file.get('path')} {binary}"))
        for line in clean(str(file.get("diff", ""))).splitlines():
            terminal.say(f"  {line}")
    if changes.get("truncated") or task.get("changes_left_out"):
        terminal.say(f"  there is more: dicode task approve {task['id']} shows all")


def _settle(session: Session, tasks: list[dict[str, Any]]) -> int:
    """Have what waits approved, where somebody can be asked; then say how each task stands."""
    terminal = session.terminal
    waiting = [task for task in tasks if task.get("state") == _PENDING]
    for task in waiting:
        if approve_version(session, str(task["id"]), str(task["hash"])):
            task["state"] = "in_force"
            terminal.say()
    for task in tasks:
        for line in _standing(task, len(tasks) > 1, terminal.clock):
            terminal.say(line)
    return failures.FAILED if all(task.get("state") == "broken" for task in tasks) else failures.OK


def _standing(task: dict[str, Any], named: bool, clock: Clock) -> list[str]:
    name = one_line(str(task["id"])) + ": " if named else ""
    match task.get("state"):
        case "in_force":
            return [f"{name}Task registered. {_start(task, clock)}"]
        case "pending_approval":
            return [
                one_line(f"{task['id']} waits for an approval; nothing of it runs before."),
                f"  see what it may do and approve it: dicode task approve {task['id']}",
            ]
        case _:
            told = str(task.get("message") or task.get("state") or task.get("change") or "")
            return [one_line(f"{task['id']}: {told}"), *(f"  {p}" for p in problem_lines(task))]


def _start(task: dict[str, Any], clock: Clock) -> str:
    trigger = one_line(str(task.get("trigger", "manual")))
    if task.get("next_run"):
        return f"Next run: {distance(str(task['next_run']), clock)} ({trigger})."
    if trigger == "manual":
        return f"Run it with: dicode run {task['id']}"
    return f"Started by {trigger}."


def distance(iso: str, clock: Clock) -> str:
    """Write how far off a time is, in whole words: ``in 5 minutes``."""
    seconds = max(0, round((parse_iso(iso) - clock.now_ms()) / 1000))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        count = round(seconds / size)
        if count and seconds >= size * 0.95:
            return f"in {count} {unit}{'s' if count > 1 else ''}"
    return f"in {seconds} second{'' if seconds == 1 else 's'}"

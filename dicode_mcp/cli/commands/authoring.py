"""Commands that write tasks: ``task new``."""

from __future__ import annotations

import argparse
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.commands.tasks import problem_lines, troubles
from dicode_mcp.cli.render import one_line
from dicode_mcp.cli.session import Session


def new_task(session: Session, args: argparse.Namespace) -> int:
    """Make a task; exit code 1 when it is not in force afterwards."""
    made = session.call(
        "new_task",
        source=args.source or _first_writable(session),
        id=args.id,
        template=args.template,
        trigger=args.trigger,
        trigger_value=args.on,
        name=args.name,
        description=args.description,
    )
    live = bool(made.get("live"))
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(made)
        return failures.OK if live else failures.FAILED
    for file in cast("list[str]", made.get("files", [])):
        terminal.say(one_line(f"{made.get('folder')}/{file}"))
    for line in [*problem_lines(made), *troubles(made, terminal)]:
        terminal.say(line)
    state = f"is live; try it: dicode run {made['id']}" if live else "is not in force"
    terminal.say(f"{made['id']} {state}")
    return failures.OK if live else failures.FAILED


def _first_writable(session: Session) -> str:
    found = session.call("list_sources")
    for source in cast("list[dict[str, Any]]", found.get("sources", [])):
        shown = cast("dict[str, Any]", source.get("dev") or {})
        if source.get("type") == "local" or shown.get("folder"):
            return str(source["name"])
    raise failures.usage(
        "no source can be written to", "name a folder with `dicode serve --source PATH`"
    )

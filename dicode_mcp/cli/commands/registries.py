"""Commands on registries: ``task search`` asks the server, ``registry lint`` needs none."""

from __future__ import annotations

import argparse
import importlib
import os
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.render import Terminal, cells, fit, one_line
from dicode_mcp.cli.session import Session

SEARCH_SECONDS = 60.0
"""How long registries may take to answer."""
_AFTER_PATH = 5
_AFTER_DESCRIPTION = 4
_LEAST_DESCRIPTION = 24
"""With less room than this a description stands on a line of its own."""
_INDENT = "  "


def search(session: Session, args: argparse.Namespace) -> int:
    """Show what the registries offer, best match first."""
    query = " ".join(args.words)
    wanted = {"query": query, "registry": args.registry, "limit": args.limit}
    with session.connect() as client:
        given = {key: value for key, value in wanted.items() if value is not None}
        result = client.call("search_tasks", given, waits=SEARCH_SECONDS)
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(result)
        return failures.OK
    tasks = cast("list[dict[str, Any]]", result.get("tasks", []))
    if tasks:
        terminal.say()
        for line in offer_lines([_cells_of(task) for task in tasks], terminal.width):
            terminal.say(line)
        terminal.say()
        terminal.say(f"{_INDENT}{_count(result, len(tasks))}")
    else:
        terminal.note(_nothing(result, query))
    for problem in cast("list[dict[str, Any]]", result.get("problems", [])):
        terminal.note(_problem(problem))
    return failures.OK


def _cells_of(task: dict[str, Any]) -> tuple[str, str, str]:
    path, description = str(task["path"]), str(task.get("description") or task.get("name") or "")
    return one_line(path), one_line(description), one_line(str(task.get("repo", "")))


def offer_lines(rows: list[tuple[str, str, str]], width: int | None) -> list[str]:
    """Lay out path, description and repository; nothing is cut when nobody looks.

    A description gives way to a terminal's width, and where that leaves too little of it, it goes
    below its path.
    """
    path = max(cells(row[0]) for row in rows) + _AFTER_PATH
    longest = max(cells(row[1]) for row in rows)
    if width is not None:
        rest = max(cells(row[2]) for row in rows) + len(_INDENT) + path + _AFTER_DESCRIPTION
        room = width - rest
        if room < min(longest, _LEAST_DESCRIPTION):
            return _stacked(rows, width)
        longest = min(longest, room)
    description = longest + _AFTER_DESCRIPTION
    return [
        (_INDENT + _padded(row[0], path) + _padded(fit(row[1], longest), description) + row[2])
        for row in rows
    ]


def _stacked(rows: list[tuple[str, str, str]], width: int) -> list[str]:
    from textwrap import wrap

    lines: list[str] = []
    for path, description, repo in rows:
        lines.append(fit(f"{_INDENT}{path}", width))
        lines += wrap(
            description, max(20, width), initial_indent=_INDENT * 3, subsequent_indent=_INDENT * 3
        )
        lines.append(fit(f"{_INDENT * 3}{repo}", width))
    return lines


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def _count(result: dict[str, Any], shown: int) -> str:
    count = int(result.get("count", shown))
    found = f"{count} task found" if count == 1 else f"{count} tasks found"
    if shown < count:
        found += f", {shown} shown (--limit N shows more)"
    return f"{found}. Install with: {result.get('install', 'dicode task install <name>')}"


def _nothing(result: dict[str, Any], query: str) -> str:
    note = result.get("note")
    return one_line(str(note)) if note else one_line(f"no task matches {query!r}")


def _problem(problem: dict[str, Any]) -> str:
    place = str(problem.get("file", ""))
    if problem.get("line"):
        place += f":{problem['line']}"
    hint = f"; {problem['hint']}" if problem.get("hint") else ""
    return one_line(f"{place + ': ' if place else ''}{problem.get('message', '')}{hint}")


def lint(session: Session, args: argparse.Namespace) -> int:
    """Check a registry's files; exit code 1 when something in it has to be mended."""
    path = os.path.abspath(os.path.expanduser(args.path))
    if not os.path.exists(path):
        raise failures.usage(f"{path} does not exist", "name a folder with a taskset.yaml")
    # The rules are the server's own; they load more than the rest of the command line.
    module: Any = importlib.import_module("dicode_mcp.registry_lint")
    report: dict[str, Any] = module.lint_registry(
        path, cwd=os.getcwd(), environ=os.environ, fetch=args.fetch, private=args.allow_private
    )
    strict = bool(args.strict and report["warnings"])
    failed = bool(report["errors"]) or strict
    if session.as_json:
        session.terminal.show_json({"ok": not failed, **report})
    else:
        _show_report(session.terminal, report, strict)
    return failures.FAILED if failed else failures.OK


def _show_report(terminal: Terminal, report: dict[str, Any], strict: bool) -> None:
    errors, warnings = report["errors"], report["warnings"]
    marked = [(problem, "" if strict else "warning: ") for problem in warnings]
    every = [*((problem, "") for problem in errors), *marked]
    for problem, mark in sorted(every, key=lambda pair: _order(pair[0])):
        terminal.say(_lint_line(problem, mark))
    entries = _many(report["entries"], "entry", "entries")
    found = [_many(len(errors), "error", "errors")] if errors else []
    found += [_many(len(warnings), "warning", "warnings")] if warnings else []
    terminal.say(f"{entries}: {', '.join(found) or 'no problems'}")


def _order(problem: dict[str, Any]) -> tuple[str, int, int]:
    return str(problem["file"]), int(problem.get("line", 0)), int(problem.get("column", 0))


def _lint_line(problem: dict[str, Any], mark: str) -> str:
    line = f":{problem['line']}" if problem.get("line") else ""
    path = f"{problem['path']}: " if problem.get("path") else ""
    hint = f"; {problem['hint']}" if problem.get("hint") else ""
    return one_line(f"{problem['file']}{line}: {mark}{path}{problem['message']}{hint}")


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"

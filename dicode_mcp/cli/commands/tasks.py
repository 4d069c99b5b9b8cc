"""Commands on tasks: ``list get enable disable task validate``."""

from __future__ import annotations

import argparse
import os
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.render import Terminal, clean, facts, one_line, relative, table
from dicode_mcp.cli.session import Session

PAGE = 500


def pages(session: Session, tool: str, key: str, limit: int | None, **arguments: Any) -> Any:
    """Give all items of a listing, page by page, or the first ``limit``."""
    items: list[dict[str, Any]] = []
    given = {name: value for name, value in arguments.items() if value is not None}
    with session.connect() as client:
        while True:
            wanted = PAGE if limit is None else min(PAGE, limit - len(items))
            page = client.call(tool, {**given, "limit": wanted})
            items += cast("list[dict[str, Any]]", page.get(key, []))
            given["cursor"] = page.get("next_cursor")
            if not given["cursor"] or (limit is not None and len(items) >= limit):
                return items, given["cursor"]


def check_limit(limit: int | None) -> None:
    """Refuse a limit that asks for nothing."""
    if limit is not None and limit < 1:
        raise failures.usage("--limit must be at least 1")


def list_tasks(session: Session, args: argparse.Namespace) -> int:
    """Show the tasks as a table, what is wrong with them below it."""
    check_limit(args.limit)
    wanted = {
        "query": args.query,
        "tag": args.tag,
        "source": args.source,
        "status": args.status,
        "cursor": args.cursor,
    }
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(session.call("list_tasks", limit=args.limit or PAGE, **wanted))
        return failures.OK
    tasks, more = pages(session, "list_tasks", "tasks", args.limit, **wanted)
    if not tasks:
        terminal.note(_nothing_found(args))
        return failures.OK
    rows = [_row(task, terminal) for task in tasks]
    headers = ["TASK", "STATE", "TRIGGER", "LAST RUN", "NEXT RUN", "DESCRIPTION"]
    for line in table(headers, rows, terminal.width):
        terminal.say(line)
    for task in tasks:
        for line in troubles(task, terminal):
            terminal.say(f"{task['id']}: {line}")
    _say_more(terminal, more)
    return failures.OK


def _nothing_found(args: argparse.Namespace) -> str:
    if any((args.query, args.tag, args.source, args.status)):
        return "no task matches; `dicode list` shows all"
    return "no tasks yet; `dicode source list` shows where the server looks for them"


def _say_more(terminal: Terminal, cursor: str | None) -> None:
    if cursor:
        terminal.note(f"more: add --cursor {cursor}")


def _row(task: dict[str, Any], terminal: Terminal) -> list[str]:
    return [
        str(task["id"]),
        state(task),
        trigger_text(task.get("trigger")),
        _last_run(task.get("last_run"), terminal),
        relative(task.get("next_run"), terminal.clock),
        str(task.get("description") or task.get("name") or ""),
    ]


def _last_run(run: Any, terminal: Terminal) -> str:
    if not isinstance(run, dict):
        return "-"
    line = cast("dict[str, Any]", run)
    moment = line.get("finished_at") or line.get("started_at") or line.get("created_at")
    return f"{line.get('status', '?')} {relative(moment, terminal.clock)}"


def state(task: dict[str, Any]) -> str:
    """Tell a task's state as ``--status`` names it; ``(kept)``: an older version is in force."""
    conditions = {c["type"]: c for c in cast("list[dict[str, Any]]", task.get("conditions", []))}
    if _is(conditions.get("Paused"), "True"):
        return "paused"
    if _is(conditions.get("Conflict"), "True"):
        return "conflict"
    ready = conditions.get("Ready")
    if ready is not None and ready.get("reason") == _PENDING:
        return "pending_approval (kept)" if task.get("kept") else "pending_approval"
    if _is(ready, "False"):
        return "broken (kept)" if task.get("kept") else "broken"
    if _is(conditions.get("RuntimeAvailable"), "False"):
        return "unavailable"
    return "ready"


def _is(condition: dict[str, Any] | None, status: str) -> bool:
    return condition is not None and str(condition.get("status")) == status


def troubles(task: dict[str, Any], terminal: Terminal) -> list[str]:
    """Give a line for each condition a reader should act on."""
    lines: list[str] = []
    for condition in cast("list[dict[str, Any]]", task.get("conditions", [])):
        good = "False" if condition["type"] in _BAD_WHEN_TRUE else "True"
        if condition["type"] in _QUIET or str(condition.get("status")) == good:
            continue
        text = one_line(str(condition.get("message") or condition.get("reason", "")))
        told = condition["type"] if good == "False" else f"not {condition['type']}"
        lines.append(terminal.style(f"{told}: {text}", "yellow"))
    return lines


_BAD_WHEN_TRUE = {"Paused", "Conflict", "NotInForce", "CrashLooping"}
_QUIET = {"Paused", "NotInForce"}
_PENDING = "PendingApproval"


def trigger_text(trigger: Any) -> str:
    """Write a manifest's trigger in a few words: ``cron */5 * * * *``, ``manual``."""
    if not isinstance(trigger, dict):
        return str(trigger or "-")
    kinds = cast("dict[str, Any]", trigger)
    for kind in ("cron", "webhook", "chain", "daemon", "manual"):
        if kind not in kinds:
            continue
        value = kinds[kind]
        if isinstance(value, str):
            return f"{kind} {value}"
        origin = cast("dict[str, Any]", value).get("from") if isinstance(value, dict) else None
        return f"{kind} {origin}" if isinstance(origin, str) else kind
    return "-"


def get_task(session: Session, args: argparse.Namespace) -> int:
    """Show one task whole."""
    task = session.call("get_task", id=args.id, explain=True if args.explain else None)
    if session.as_json:
        session.terminal.show_json(task)
        return failures.OK
    _show_task(session.terminal, task)
    return failures.OK


def _show_task(terminal: Terminal, task: dict[str, Any]) -> None:
    terminal.say(terminal.style(str(task["id"]), "bold") + f"  ({state(task)})")
    if task.get("description"):
        terminal.say(clean(str(task["description"])))
    for key in ("runtime", "source", "folder", "revision", "hash"):
        if task.get(key):
            terminal.say(f"{key}: {one_line(str(task[key]))}")
    terminal.say(f"trigger: {trigger_text(task.get('trigger'))}")
    if task.get("webhook_url"):
        terminal.say(f"address: {one_line(str(task['webhook_url']))}")
    if task.get("next_run"):
        terminal.say(f"next run: {relative(task['next_run'], terminal.clock)}")
    if task.get("last_run"):
        run = cast("dict[str, Any]", task["last_run"])
        terminal.say(f"last run: {_last_run(run, terminal)}  {run.get('run_id', '')}")
    _show_state(terminal, task)
    spec = cast("dict[str, Any]", task.get("spec") or {})
    for line in params_lines(spec, terminal):
        terminal.say(line)
    rest = {k: v for k, v in spec.items() if k not in _SHOWN_ALREADY}
    if rest:
        terminal.say("spec:")
        for line in facts(rest, "  "):
            terminal.say(line)
    for line in origin_lines(task, terminal):
        terminal.say(line)


def origin_lines(task: dict[str, Any], terminal: Terminal) -> list[str]:
    """Lay out which layer and line each value of the manifest is from."""
    origins = cast("list[dict[str, Any]]", task.get("origins") or [])
    if not origins:
        return []
    rows = [
        [
            str(origin.get("path", "")),
            _written(origin),
            ", ".join(_written(o) for o in cast("list[dict[str, Any]]", origin.get("over") or [])),
        ]
        for origin in origins
    ]
    width = None if terminal.width is None else terminal.width - 2
    lines = table(["VALUE", "FROM", "INSTEAD OF"], rows, width)
    return ["origins:", *(f"  {line}" for line in lines)]


def _written(origin: dict[str, Any]) -> str:
    """Write a layer with its place; the file's name says enough where it is the layer's."""
    layer, file = str(origin.get("layer", "")), str(origin.get("file") or "")
    line = f":{origin['line']}" if origin.get("line") else ""
    if not file:
        return layer
    return f"{layer}{line}" if layer == file else f"{layer} ({file}{line})"


_SHOWN_ALREADY = {"name", "description", "runtime", "trigger", "params", "apiVersion", "kind"}


def _show_state(terminal: Terminal, task: dict[str, Any]) -> None:
    for condition in cast("list[dict[str, Any]]", task.get("conditions", [])):
        text = one_line(str(condition.get("message", "")))
        since = relative(condition.get("since"), terminal.clock)
        reason = condition.get("reason", "")
        terminal.say(
            f"{condition['type']}={condition.get('status')} ({reason}, {since})"
            + (f": {text}" if text else "")
        )
    for line in problem_lines(task):
        terminal.say(terminal.style(line, "red"))


def problem_lines(result: dict[str, Any]) -> list[str]:
    """Write the ``problems`` of a result, one ``file:line: key: message`` each, hints below."""
    lines: list[str] = []
    for problem in cast("list[dict[str, Any]]", result.get("problems", [])):
        place = str(problem.get("file", "task.yaml"))
        for number in (problem.get("line"), problem.get("column")):
            place += f":{number}" if number else ""
        path = f"{problem['path']}: " if problem.get("path") else ""
        lines.append(one_line(f"{place}: {path}{problem.get('message', '')}"))
        if problem.get("hint"):
            lines.append("  " + one_line(str(problem["hint"])))
    return lines


def params_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the params of a manifest in either form as ``{name, type?, default?, …}``."""
    declared: Any = spec.get("params") or {}
    if isinstance(declared, list):
        return [dict(param) for param in cast("list[dict[str, Any]]", declared)]
    named = cast("dict[str, Any]", declared)
    return [
        {"name": name, **(cast("dict[str, Any]", p) if isinstance(p, dict) else {"default": p})}
        for name, p in named.items()
    ]


def params_lines(spec: dict[str, Any], terminal: Terminal) -> list[str]:
    """Lay out a task's params for a reader who wants to run it."""
    params = params_of(spec)
    if not params:
        return ["params: none"]
    rows = [
        [
            str(param["name"]),
            str(param.get("type", "string")),
            _need(param),
            _about(param),
        ]
        for param in params
    ]
    width = None if terminal.width is None else terminal.width - 2
    lines = table(["NAME", "TYPE", "DEFAULT", "ABOUT"], rows, width)
    return ["params:", *(f"  {line}" for line in lines)]


def _need(param: dict[str, Any]) -> str:
    if param.get("required"):
        return "(required)"
    default = param.get("default")
    return "-" if default is None else str(default)


def _about(param: dict[str, Any]) -> str:
    about = str(param.get("description") or "")
    allowed = cast("list[Any]", param.get("enum") or [])
    if allowed:
        about += f" (one of {', '.join(str(value) for value in allowed)})"
    return about.strip()


def enable(session: Session, args: argparse.Namespace) -> int:
    """End a task's pause."""
    return _set_enabled(session, args.id, True)


def disable(session: Session, args: argparse.Namespace) -> int:
    """Pause a task."""
    return _set_enabled(session, args.id, False)


def _set_enabled(session: Session, task_id: str, enabled: bool) -> int:
    task = session.call("set_task_enabled", id=task_id, enabled=enabled)
    if session.as_json:
        session.terminal.show_json(task)
    else:
        session.terminal.say(f"{task.get('id', task_id)} is {'enabled' if enabled else 'paused'}")
    return failures.OK


def validate(session: Session, args: argparse.Namespace) -> int:
    """Check a folder, a ``task.yaml`` or a loaded task; exit code 1 when something is wrong."""
    wanted = _target(args.target)
    verdict = session.call("validate_task", **wanted)
    terminal = session.terminal
    valid = bool(verdict.get("valid"))
    if session.as_json:
        terminal.show_json(verdict)
        return failures.OK if valid else failures.FAILED
    for line in [*problem_lines(verdict), *troubles(_without_ready(verdict), terminal)]:
        terminal.say(line)
    terminal.say(f"{args.target}: {'valid' if valid else 'not valid'}")
    return failures.OK if valid else failures.FAILED


def _without_ready(verdict: dict[str, Any]) -> dict[str, Any]:
    """Leave out the condition that ``problems`` tell in other words."""
    conditions = cast("list[dict[str, Any]]", verdict.get("conditions", []))
    told = verdict.get("problems")
    return {"conditions": [c for c in conditions if not told or c["type"] != "Ready"]}


def _target(target: str) -> dict[str, str]:
    path = os.path.abspath(os.path.expanduser(target))
    looks_like_path = target.startswith((".", "/", "~")) or target.endswith((".yaml", ".yml"))
    if looks_like_path and not os.path.exists(path):
        raise failures.usage(f"{path} does not exist", "give a folder with a task.yaml, or an id")
    if looks_like_path or os.path.isfile(os.path.join(path, "task.yaml")):
        return {"path": path}
    return {"id": target}

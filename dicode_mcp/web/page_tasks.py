"""Tasks and sources on the page: the overview's tables, and the page of one task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, cast

import yaml

from dicode_mcp.web.markup import Child, Html, join, tag
from dicode_mcp.web.page_parts import (
    Column,
    Moments,
    View,
    badge,
    cut,
    facts,
    run_link,
    section,
    table,
    task_link,
    trigger,
)

_SHOWN_SPEC = 64 * 1024
_SHOWN_MESSAGE = 300
# What every task would show in the overview and no reader acts on there.
_FOR_THE_TASKS_OWN_PAGE = frozenset({"NotInForce"})


def states(task: View) -> list[str]:
    """Say how a task stands: ``ready``, or each of what keeps it from running as written."""
    waits = any(c["reason"] == "PendingApproval" for c in task.get("conditions", ()))
    held = {(c["type"], c["status"]) for c in task.get("conditions", ())}
    found = [
        word
        for word, condition in (
            ("conflict", ("Conflict", "True")),
            ("needs approval" if waits else "broken", ("Ready", "False")),
            ("crash-looping", ("CrashLooping", "True")),
            ("paused", ("Paused", "True")),
        )
        if condition in held
    ]
    never_loaded = "runtime" not in task and not {"conflict", "broken"} & set(found) and not waits
    return [*found, *(["broken"] if never_loaded else [])] or ["ready"]


def reasons(view: View) -> list[str]:
    """Give what the conditions of a task or source have to say; a good ``Ready`` says nothing."""
    return [
        condition.get("message") or condition["reason"]
        for condition in view.get("conditions", ())
        if (condition["type"], condition["status"]) != ("Ready", "True")
        and condition["type"] not in _FOR_THE_TASKS_OWN_PAGE
    ]


def state_cell(view: View, words: Sequence[str]) -> Html:
    """Show states with their reasons below."""
    notes = [tag("p", _short(reason), class_="reason") for reason in reasons(view)]
    return join([badge(word) for word in words], notes)


def task_table(tasks: Sequence[View], moments: Moments) -> Html:
    """List tasks."""
    columns = [
        Column("Task", "main"),
        Column("State", "main"),
        Column("Trigger"),
        Column("Next run", "time"),
        Column("Last run", "time"),
    ]
    return table("Tasks", columns, [_task_row(task, moments) for task in tasks])


def _task_row(task: View, moments: Moments) -> list[Child]:
    about = task.get("description") or task["name"]
    known = about == task["id"].rsplit("/", 1)[-1]
    return [
        join(task_link(task["id"]), None if known else tag("p", _short(about), class_="about")),
        state_cell(task, states(task)),
        trigger(task),
        moments.near(task.get("next_run")),
        last_run(task, moments),
    ]


def last_run(task: View, moments: Moments) -> Child:
    """Show how the newest run stands, and when it was."""
    run = task.get("last_run")
    if not run:
        return None
    when = moments.near(run.get("finished_at") or run.get("started_at") or run["created_at"])
    return join(badge(run["status"]), run_link(run["run_id"], when))


def source_table(sources: Sequence[View]) -> Html:
    """List sources with what is wrong with them."""
    columns = [
        Column("Source"),
        Column("State", "main"),
        Column("Where", "main"),
        Column("Tasks", "number"),
    ]
    return table("Sources", columns, [_source_row(source) for source in sources])


def _source_row(source: View) -> list[Child]:
    held = {(c["type"], c["status"]) for c in source.get("conditions", ())}
    good = not {("Ready", "False"), ("Synced", "False")} & held
    problems = source.get("problems", ())
    revision = source.get("revision")
    return [
        join(source["name"], tag("span", f" {source['type']}", class_="quiet")),
        join(
            state_cell(source, ["ready" if good else "broken"]),
            [tag("p", _problem_line(problem), class_="reason") for problem in problems],
        ),
        join(
            tag("code", str(source.get("path") or source.get("url") or ""), class_="path"),
            [" at ", tag("code", revision[:12])] if revision else None,
            " (dev mode)" if source.get("dev_mode") else None,
        ),
        str(source["tasks"]),
    ]


def task_body(task: View, runs: Child, moments: Moments) -> Html:
    """Write the page of one task; ``runs`` is the table of its runs."""
    spec = cast("Mapping[str, Any]", task.get("spec") or {})
    return join(
        tag("h1", task["name"]),
        tag("p", [badge(word) for word in states(task)]),
        tag("p", task["description"], class_="lead") if task.get("description") else None,
        _problems(task),
        facts(_facts(task, moments)),
        _conditions(task, moments),
        _params(spec),
        section("Runs", runs, anchor="runs"),
        _spec(spec),
    )


def _facts(task: View, moments: Moments) -> list[tuple[str, Child]]:
    revision = task.get("revision")
    return [
        ("Id", tag("code", task["id"])),
        ("Trigger", trigger(task)),
        ("Next run", moments.full(task.get("next_run"))),
        ("Last run", last_run(task, moments)),
        ("Runtime", task.get("runtime")),
        ("Tags", ", ".join(task.get("tags", ()))),
        ("Source", task["source"]),
        ("Folder", tag("code", task["folder"], class_="path")),
        ("Version", tag("code", task["hash"][:12]) if task.get("hash") else None),
        ("Commit", tag("code", revision[:12]) if revision else None),
        ("Run it", tag("code", f"dicode run {task['id']}") if task["enabled"] else None),
    ]


def _problems(task: View) -> Child:
    problems = task.get("problems")
    if not problems:
        return None
    kept = (
        "The last good version stays in force."
        if task.get("spec")
        else "No version of it has loaded yet."
    )
    items = [
        tag("li", _problem_line(p), tag("p", p["hint"], class_="hint") if p.get("hint") else None)
        for p in problems
    ]
    return tag(
        "section", tag("h2", "What is wrong"), tag("p", kept), tag("ul", items), class_="alarm"
    )


def _problem_line(problem: View) -> Html:
    place = PurePosixPath(problem["file"]).name
    if problem.get("line"):
        place += f":{problem['line']}"
    path = problem.get("path")
    return join(
        tag("code", place, title=problem["file"]),
        [" ", tag("code", path)] if path else None,
        " ",
        problem["message"],
    )


def _conditions(task: View, moments: Moments) -> Child:
    columns = [
        Column("Condition"),
        Column("Holds"),
        Column("Reason"),
        Column("Message", "main"),
        Column("Since", "time"),
    ]
    rows: list[Sequence[Child]] = [
        (
            c["type"],
            "yes" if c["status"] == "True" else "no",
            c["reason"],
            tag("span", c["message"], class_="lines") if c.get("message") else None,
            moments.near(c.get("since")),
        )
        for c in task.get("conditions", ())
    ]
    return section("Conditions", table("Conditions", columns, rows)) if rows else None


def _params(spec: Mapping[str, Any]) -> Child:
    declared = spec.get("params")
    if not isinstance(declared, Mapping) or not declared:
        return None
    columns = [
        Column("Parameter"),
        Column("Type"),
        Column("Default"),
        Column("Allowed"),
        Column("Description", "main"),
    ]
    params = cast("Mapping[str, Mapping[str, Any]]", declared)
    rows = [_param_row(name, param) for name, param in params.items()]
    return section("Parameters", table("Parameters", columns, rows))


def _param_row(name: str, param: Mapping[str, Any]) -> list[Child]:
    default = tag("code", _scalar(param["default"])) if "default" in param else None
    allowed: list[Child] = []
    for value in param.get("enum", ()):
        allowed += [", " if allowed else None, tag("code", _scalar(value))]
    return [
        tag("code", name),
        str(param.get("type", "string")),
        default or ("required" if param.get("required") else None),
        join(allowed) or None,
        param.get("description"),
    ]


def _spec(spec: Mapping[str, Any]) -> Child:
    if not spec:
        return None
    text = yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True, width=100)
    return section("Manifest in force", cut(text, _SHOWN_SPEC))


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_MESSAGE else text[: _SHOWN_MESSAGE - 1].rstrip() + "…"

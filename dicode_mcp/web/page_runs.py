"""Runs on the page: the table of runs, and the page of one run with its log, a part at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dicode_mcp.web.markup import Child, Html, join, tag
from dicode_mcp.web.page_parts import (
    Column,
    Moments,
    View,
    badge,
    cut,
    facts,
    link,
    run_link,
    section,
    table,
    task_link,
    took,
)
from dicode_mcp.web.page_questions import answers_section, question_note

LOG_LINES = 200
LOG_CHARS = 256 * 1024
"""How much of a log one page shows at most; a line alone is at most 64 KiB."""
_SHOWN_VALUE = 64 * 1024
_SHOWN_MESSAGE = 200
_ON = frozenset({"queued", "running", "waiting"})


def is_on(run: View) -> bool:
    """Tell whether a run may still change."""
    return run["status"] in _ON


def run_table(runs: Sequence[View], moments: Moments, *, of_one_task: bool = False) -> Html:
    """List runs; without their task's name when all are of one."""
    columns = [
        Column("Run"),
        Column("Status"),
        *([] if of_one_task else [Column("Task")]),
        Column("Started by"),
        Column("When", "time"),
        Column("Took", "time"),
        Column("Why", "main"),
    ]
    return table("Runs", columns, [_run_row(run, moments, of_one_task) for run in runs])


def _run_row(run: View, moments: Moments, of_one_task: bool) -> list[Child]:
    return [
        run_link(run["run_id"]),
        badge(run["status"]),
        *([] if of_one_task else [task_link(run["task"])]),
        run["trigger"],
        moments.near(run.get("started_at") or run["created_at"]),
        took(run.get("duration_ms")),
        _why(run),
    ]


def _why(run: View) -> Child:
    error = run.get("error")
    if "question" in run:
        return f"asks: {run['question']['message']}"
    if not error:
        return run.get("reason")
    line = " ".join(str(error["message"]).split())
    text = line if len(line) <= _SHOWN_MESSAGE else line[: _SHOWN_MESSAGE - 1] + "…"
    return join([tag("code", _place(error)), " "] if error.get("file") else None, text)


def _place(error: View) -> str:
    return f"{error['file']}:{error['line']}" if error.get("line") else error["file"]


def run_body(run: View, log: Child, moments: Moments) -> Html:
    """Write the page of one run; ``log`` is the part of its log to show."""
    return join(
        tag("h1", "Run of ", task_link(run["task"])),
        tag("p", badge(run["status"])),
        question_note(run),
        _error(run),
        facts(_facts(run, moments)),
        answers_section(run, moments),
        _value(run),
        _output(run),
        log,
    )


def _facts(run: View, moments: Moments) -> list[tuple[str, Child]]:
    parent, replayed = run.get("parent_run_id"), run.get("replay_of")
    return [
        ("Run", tag("code", run["run_id"])),
        ("Started by", run["trigger"]),
        ("Asked for", moments.full(run["created_at"])),
        ("Started", moments.full(run.get("started_at"))),
        ("Ended", moments.full(run.get("finished_at"))),
        ("Took", took(run.get("duration_ms"))),
        ("Reason", run.get("reason")),
        ("Exit code", _text(run.get("exit_code"))),
        ("Signal", _text(run.get("signal"))),
        ("Attempt", str(run["attempt"]) if run["attempt"] > 1 else None),
        ("Started by run", run_link(parent) if parent else None),
        ("Replay of", run_link(replayed) if replayed else None),
        ("Version", tag("code", run["hash"]) if run.get("hash") else None),
        ("Commit", tag("code", run["revision"][:12]) if run.get("revision") else None),
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _error(run: View) -> Child:
    error = run.get("error")
    if not error:
        return None
    place, trace = error.get("file"), error.get("traceback")
    shown = cut(trace, _SHOWN_VALUE) if trace else None
    return tag(
        "section",
        tag("h2", "What went wrong"),
        tag("p", "In ", tag("code", _place(error))) if place else None,
        tag("pre", error["message"], tabindex=0),
        tag("p", error["hint"], class_="hint") if error.get("hint") else None,
        tag("details", tag("summary", "Traceback"), shown) if shown else None,
        class_="alarm",
    )


def _value(run: View) -> Child:
    if "return_value" not in run:
        return None
    value = run["return_value"]
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return section("Return value", cut(text, _SHOWN_VALUE))


def _output(run: View) -> Child:
    """Show what the task displayed: text as it is, HTML as its source, else only what it is."""
    output = run.get("output")
    if not output:
        return None
    name = f", {output['name']}" if output.get("name") else ""
    size = f"{len(output['body']):,} characters"
    about = tag("p", f"{output['content_type']}{name}, {size}", class_="quiet")
    if output.get("base64"):
        return section("Output", about)
    return section("Output", about, cut(output["body"], _SHOWN_VALUE))


@dataclass(frozen=True, slots=True)
class LogPart:
    """Lines of a log that fit on a page. ``more`` is the seq after which the next ones come."""

    lines: Sequence[View]
    more: int | None = None
    at_end: bool = False
    """Whether the part was asked for as the log's end."""


def last_part(lines: Sequence[View]) -> LogPart:
    """Keep the last of the log's last lines that fit."""
    return LogPart(lines[len(lines) - _fitting(list(reversed(lines))) :], at_end=True)


def part_after(lines: Sequence[View], next_after: int | None) -> LogPart:
    """Keep the first of a page of lines that fit; the next part begins after them."""
    count = _fitting(lines)
    return LogPart(lines[:count], lines[count - 1]["seq"] if count < len(lines) else next_after)


def _fitting(lines: Sequence[View]) -> int:
    """Count the lines from the first on that fit; one always does."""
    room = LOG_CHARS
    for index, line in enumerate(lines):
        room -= len(line["message"]) + 1
        if room < 0 and index > 0:
            return index
    return len(lines)


def log_section(run: View, part: LogPart, moments: Moments) -> Html:
    """Show a part of a log, with the ways to the others."""
    if not part.lines and part.at_end:
        empty = "Nothing yet." if is_on(run) else "The run wrote nothing."
        return section("Log", tag("p", empty, class_="quiet"), anchor="log")
    columns = [Column("Line", "number"), Column("Time", "time"), Column("Level"), Column("Message")]
    rows = [_line(line, moments) for line in part.lines]
    ways = _ways(run, part)
    lines = table("Log", columns, rows)
    return section("Log", ways, tag("div", lines, class_="log"), ways, anchor="log")


def _line(line: View, moments: Moments) -> list[Child]:
    level = line["level"]
    return [
        str(line["seq"]),
        moments.of_day(line["ts"]),
        tag("span", level, class_=f"level {level}"),
        tag("span", line["message"], class_="message"),
    ]


def _ways(run: View, part: LogPart) -> Child:
    path = f"/runs/{run['run_id']}"
    first = part.lines[0]["seq"] if part.lines else 1
    ways: list[Child] = []
    if first > 1:
        ways.append(link("From the start", path, after=0))
        ways.append(link("Earlier lines", path, after=max(0, first - 1 - LOG_LINES)))
    if part.more is not None:
        ways.append(link("Later lines", path, after=part.more))
    if not part.at_end:
        ways.append(link("The end of the log", path))
    return tag("p", ways, class_="ways") if ways else None

"""The overview's own parts: how the server stands, the search, the tasks found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.web.app import Readiness
from dicode_mcp.web.frame import sentence
from dicode_mcp.web.markup import Child, Html, join, tag
from dicode_mcp.web.page_parts import Moments, View, link, roughly, section
from dicode_mcp.web.page_tasks import task_table

_STATES = ("ready", "broken", "paused")
_UNREADY = {
    Readiness.STARTING: "The server is reading its sources; more tasks may appear.",
    Readiness.DRAINING: "The server is stopping and takes no more runs.",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks the reader asked for."""

    words: str | None = None
    status: str | None = None

    @classmethod
    def of(cls, words: str | None, status: str | None) -> Self:
        """Read the query; raises INVALID_ARGUMENT for a status that tasks do not have."""
        if status and status not in _STATES:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                "status is not one that tasks have",
                hint=f"use one of {', '.join(_STATES)}, or leave it out",
            )
        return cls((words or "").strip()[:200] or None, status or None)


def notices(status: View, readiness: Readiness) -> Child:
    """Say what every reader should know first."""
    sandbox = status["sandbox"]
    texts = [
        _UNREADY.get(readiness),
        None if sandbox["enforced"] else sandbox["message"] or "Permissions are not enforced.",
        *status.get("notes", ()),
    ]
    told = [tag("p", sentence(text), class_="notice") for text in texts if text]
    return [_asking(status), *told]


def _asking(status: View) -> Child:
    """Say that runs wait for the reader."""
    count = status.get("asking", 0)
    if not count:
        return None
    what = "A run asks something" if count == 1 else f"{count} runs ask something"
    return tag("p", what, ": ", link("answer", "/runs", status="waiting"), ".", class_="notice")


def strip(status: View) -> Html:
    """Show the server's numbers in a row."""
    tasks = status["tasks"]
    return tag(
        "dl",
        _number("Tasks", str(tasks["total"]), _counts(tasks, ("ready", "broken", "paused"))),
        _number("Runs in 24 h", *_runs(status["runs_last_24h"])),
        _busy(status),
        _number("Up", roughly(status["uptime_seconds"]), f"dicode {status['version']}"),
        class_="strip",
    )


def _busy(status: View) -> Child:
    """Show the slots; whoever sees some tasks alone is not told what the others take."""
    slots = status.get("slots")
    if slots is None:
        return None
    waiting = f", {slots['waiting']} waiting" if slots["waiting"] else ""
    return _number("Busy", f"{slots['running']} of {slots['total']}", f"slots{waiting}")


def _number(name: str, value: str, detail: str) -> Html:
    return tag(
        "div", tag("dt", name), tag("dd", tag("b", value), " ", tag("span", detail, class_="quiet"))
    )


def _runs(counts: Mapping[str, int]) -> tuple[str, str]:
    shown = [name for name in counts if counts[name]]
    return str(sum(counts.values())), _counts(counts, shown) or "none"


def _counts(counts: Mapping[str, int], names: Sequence[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in names if counts[name])


def tasks_section(found: View, sources: Sequence[View], wanted: Wanted, moments: Moments) -> Html:
    """Show the search and the tasks it found."""
    tasks, following = found["tasks"], found.get("next_cursor")
    more = link("More tasks", "/", q=wanted.words, status=wanted.status, cursor=following)
    return section(
        "Tasks",
        _search(wanted),
        task_table(tasks, moments) if tasks else _nothing(wanted, sources),
        tag("p", more, class_="ways") if following else None,
        anchor="tasks",
    )


def _search(wanted: Wanted) -> Html:
    options = [
        tag("option", text, value=value, selected=value == (wanted.status or ""))
        for value, text in (("", "any state"), *((state, state) for state in _STATES))
    ]
    return tag(
        "form",
        tag("label", "Search ", tag("input", type="search", name="q", value=wanted.words)),
        tag("label", "State ", tag("select", options, name="status")),
        tag("button", "Show", type="submit"),
        link("Refresh", "/", q=wanted.words, status=wanted.status),
        action="/",
        role="search",
    )


def _nothing(wanted: Wanted, sources: Sequence[View]) -> Child:
    if wanted != Wanted():
        return tag("p", "No task is like that. ", link("Show all", "/"), class_="quiet")
    where: Sequence[Any] = [s["path"] for s in sources if s.get("path")]
    if not where:
        return tag("p", "No tasks, and no local source to put one into.", class_="quiet")
    return tag(
        "p",
        "No tasks yet: make a folder with a ",
        tag("code", "task.yaml"),
        " below ",
        join(tag("code", str(where[0]), class_="path")),
        ".",
    )

"""How much of a result an answer carries, and the marks that say where the rest is.

Pure: values in, values out. Sizes are characters of compact JSON; an agent pays for each.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import quote

import mcp_types as t

from dicode_mcp.tools.registry import Answer

SMALL = 20_000
"""What an answer is held to when the caller did not ask for more."""
LARGE = 60_000
"""What an answer is held to when the caller named a limit."""
MAX_MESSAGE = 2_000
MAX_TRACEBACK = 4_000

_OUTPUT_HEAD = ("kind", "content_type", "name")

Fetch = Callable[[int], Awaitable[dict[str, Any]]]


def size(value: Any) -> int:
    """Give the length of a value as compact JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def run_uri(run_id: str) -> str:
    """Give the address of a run as a resource."""
    return f"dicode://runs/{quote(run_id, safe='')}"


def fit_run(run: dict[str, Any], budget: int = SMALL) -> Answer:
    """Give a run with what is too long cut: log lines, traceback, output, then the return value."""
    fitted = dict(run)
    tail = [cut_line(line) for line in cast("list[dict[str, Any]]", run.get("logs_tail", []))]
    fitted["logs_tail"] = last_lines(tail, budget // 4)
    if len(fitted["logs_tail"]) < len(tail):
        fitted["logs_tail_truncated"] = True
    if isinstance(run.get("error"), dict):
        fitted["error"] = _cut_error(cast("dict[str, Any]", run["error"]))
    links: list[t.ResourceLink] = []
    if size(fitted) > budget and _drop_output(fitted):
        links = [_link(run)]
    if size(fitted) > budget and "return_value" in fitted:
        del fitted["return_value"]
        fitted["return_value_truncated"] = True
        links = [_link(run)]
    return Answer(fitted, tuple(links))


async def fit_page(fetch: Fetch, key: str, limit: int, budget: int) -> dict[str, Any]:
    """Fetch a page that keeps to the budget: a shorter one where ``limit`` items are too long.

    A single item is given whatever its size.
    """
    page = await fetch(limit)
    while (total := size(page)) > budget and (count := len(page[key])) > 1:
        limit = max(1, min(count - 1, count * budget // total))
        page = await fetch(limit)
    return page


def fit_lines(logs: dict[str, Any], budget: int, *, newest: bool) -> dict[str, Any]:
    """Give a page of a log with long lines cut and as many lines as fit.

    With ``newest`` the oldest lines go and ``truncated`` says so; else the newest go and
    ``next_after`` says where to go on.
    """
    lines = [cut_line(line) for line in cast("list[dict[str, Any]]", logs["lines"])]
    kept = last_lines(lines, budget) if newest else first_lines(lines, budget)
    fitted = {**logs, "lines": kept}
    if len(kept) < len(lines):
        fitted.update({"truncated": True} if newest else {"next_after": kept[-1]["seq"]})
    return fitted


def first_lines(lines: list[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """Give the first lines that fit, at least one."""
    used, kept = 0, 0
    for line in lines:
        used += size(line) + 1
        if used > budget and kept:
            break
        kept += 1
    return lines[:kept]


def last_lines(lines: list[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """Give the last lines that fit, at least one."""
    return first_lines(lines[::-1], budget)[::-1]


def cut_line(line: dict[str, Any]) -> dict[str, Any]:
    """Give a log line with at most 2,000 characters of message and a mark where it was cut."""
    return {**line, "message": cut(str(line["message"]), MAX_MESSAGE)}


def cut(text: str, limit: int) -> str:
    """Give the first ``limit`` characters, with a mark that says how many are missing."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … [{len(text) - limit} more characters]"


def _cut_error(error: dict[str, Any]) -> dict[str, Any]:
    limits = {"message": MAX_MESSAGE, "hint": MAX_MESSAGE, "traceback": MAX_TRACEBACK}
    return {
        name: cut(value, limits[name]) if name in limits and isinstance(value, str) else value
        for name, value in error.items()
    }


def _drop_output(run: dict[str, Any]) -> bool:
    output = run.get("output")
    if not isinstance(output, dict):
        return False
    shown = cast("dict[str, Any]", output)
    run["output"] = {name: shown[name] for name in _OUTPUT_HEAD if name in shown}
    run["output_truncated"] = True
    return True


def _link(run: dict[str, Any]) -> t.ResourceLink:
    return t.ResourceLink(
        type="resource_link",
        uri=run_uri(str(run["run_id"])),
        name=f"run {run['run_id']}",
        description="the run with its whole return value and output",
        mime_type="application/json",
    )

"""The plain page: overview, runs, one run, one task; read-only, without script.

Each handler asks the services and lays out what they answer; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.service import Principal, Services
from dicode_mcp.web import frame, overview
from dicode_mcp.web.app import Readiness
from dicode_mcp.web.frame import page
from dicode_mcp.web.markup import Child, join, tag
from dicode_mcp.web.page_parts import Moments, link, section
from dicode_mcp.web.page_runs import (
    LOG_LINES,
    LogPart,
    is_on,
    last_part,
    log_section,
    part_after,
    run_body,
    run_table,
)
from dicode_mcp.web.page_tasks import source_table, task_body

TASKS_SHOWN = 100
RUNS_SHOWN = 50
LAST_RUNS = 15
REFRESH_S = 3
_MAX_SEQ = 2**53


class Pages:
    """The handlers. ``zone`` is that of shown times; None is the server's own."""

    def __init__(
        self,
        services: Services,
        clock: Clock,
        *,
        readiness: Callable[[], Readiness],
        zone: tzinfo | None = None,
    ) -> None:
        self._services = services
        self._clock = clock
        self._readiness = readiness
        self._zone = zone

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``; each answers GET and HEAD."""
        return [
            Route("/", self._overview),
            Route("/runs", self._runs),
            Route("/runs/{id}", self._run),
            Route("/tasks/{id:path}", self._task),
            Route(frame.STYLE_PATH, _style),
            Route(frame.ICON_PATH, _icon),
        ]

    async def _overview(self, request: Request) -> Response:
        principal, query = _principal(request), request.query_params
        wanted = overview.Wanted.of(query.get("q"), query.get("status"))
        status = await self._services.status.get(principal)
        tasks = await self._services.tasks.list(
            principal,
            query=wanted.words,
            status=wanted.status,
            limit=TASKS_SHOWN,
            cursor=query.get("cursor"),
        )
        runs = await self._services.runs.list(principal, limit=LAST_RUNS)
        sources = await self._services.sources.list(principal)
        moments = self._moments()
        return page(
            "dicode",
            tag("h1", "Overview"),
            overview.notices(status, self._readiness()),
            overview.strip(status),
            overview.tasks_section(tasks, sources["sources"], wanted, moments),
            section(
                "Last runs",
                run_table(runs["runs"], moments) if runs["runs"] else _NO_RUNS,
                tag("p", link("All runs", "/runs")) if "next_cursor" in runs else None,
                anchor="runs",
            ),
            section("Sources", source_table(sources["sources"]), anchor="sources"),
        )

    async def _runs(self, request: Request) -> Response:
        query = request.query_params
        task, status = query.get("task") or None, _status(query.get("status"))
        found = await self._services.runs.list(
            _principal(request),
            task=task,
            status=status,
            limit=RUNS_SHOWN,
            cursor=query.get("cursor"),
        )
        runs, following = found["runs"], found.get("next_cursor")
        older = link("Older runs", "/runs", task=task, status=status, cursor=following)
        return page(
            f"Runs of {task}" if task else "Runs",
            tag("h1", f"Runs of {task}" if task else "Runs"),
            _status_links(task, status),
            run_table(runs, self._moments()) if runs else _NO_RUNS,
            tag("p", older, class_="ways") if following else None,
        )

    async def _run(self, request: Request) -> Response:
        principal, run_id = _principal(request), request.path_params["id"]
        after = _after(request.query_params.get("after"))
        run = await self._services.runs.get(principal, run_id)
        part = await self._log(principal, run_id, after)
        moments = self._moments()
        live = is_on(run) and after is None
        refreshing = live and "still" not in request.query_params
        return page(
            f"{run['status']}: {run['task']}",
            _refresh_note(run_id, refreshing) if live else None,
            run_body(run, log_section(run, part, moments), moments),
            refresh_s=REFRESH_S if refreshing else None,
        )

    async def _log(self, principal: Principal, run_id: str, after: int | None) -> LogPart:
        runs = self._services.runs
        if after is None:
            found = await runs.logs(principal, run_id, tail=LOG_LINES)
            return last_part(found["lines"])
        found = await runs.logs(principal, run_id, after=after, limit=LOG_LINES)
        return part_after(found["lines"], found.get("next_after"))

    async def _task(self, request: Request) -> Response:
        principal = _principal(request)
        task = await self._services.tasks.get(principal, request.path_params["id"])
        runs = await self._services.runs.list(principal, task=task["id"], limit=LAST_RUNS)
        moments = self._moments()
        listed = join(
            run_table(runs["runs"], moments, of_one_task=True) if runs["runs"] else _NO_RUNS,
            tag("p", link("All its runs", "/runs", task=task["id"]))
            if "next_cursor" in runs
            else None,
        )
        return page(task["name"], task_body(task, listed, moments))

    def _moments(self) -> Moments:
        return Moments(self._clock.now_ms(), self._zone)


_NO_RUNS = tag("p", "No runs.", class_="quiet")


def _principal(request: Request) -> Principal:
    """Give the caller the guard established, narrowed to reading; refuse when there is none."""
    found: object = getattr(request.state, "principal", None)
    if not isinstance(found, Principal):
        raise DicodeError(Code.UNAUTHENTICATED, "the caller is not known")
    return found.narrowed(surface="http", read_only=True)


def _status(text: str | None) -> str | None:
    if not text:
        return None
    if text not in {status.value for status in RunStatus}:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "status is not one that runs have",
            hint=f"use one of {', '.join(RunStatus)}",
        )
    return text


def _after(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 17 and int(text) < _MAX_SEQ):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "after is not the number of a log line",
            hint="use 0 for the start of the log, or leave it out for its end",
        )
    return int(text)


def _status_links(task: str | None, chosen: str | None) -> Child:
    links: list[Child] = []
    for status in (None, *RunStatus):
        word = status.value if status else "all"
        current = status == chosen
        links.append(
            tag("strong", word) if current else link(word, "/runs", task=task, status=status)
        )
    return tag("nav", links, class_="ways", aria_label="Runs by status")


def _refresh_note(run_id: str, refreshing: bool) -> Child:
    path = f"/runs/{run_id}"
    if not refreshing:
        return tag("p", link("Refresh", path, still=1), link("by itself", path), class_="ways")
    return tag(
        "p",
        f"This page refreshes every {REFRESH_S} s while the run is on.",
        link("Stop that", path, still=1),
        class_="ways quiet",
    )


async def _style(request: Request) -> Response:
    return frame.asset_response("style.css", "text/css")


async def _icon(request: Request) -> Response:
    return frame.asset_response("icon.svg", "image/svg+xml")

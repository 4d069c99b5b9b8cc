"""``/hooks/…``: requests to tasks, and the answers they get.

A method, a body and a connection are understood here; whether a message is believed and what it
starts is the service's. Pages are another's: ``HookPages`` is asked before a task is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.service.hooks import HooksService, require_caller, require_served, wants_no_result
from dicode_mcp.service.page_files import has_page
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.runs import RunsService
from dicode_mcp.triggers.webhook.request import Call
from dicode_mcp.triggers.webhook.table import PREFIX, Match
from dicode_mcp.web.body_room import LEAST_BYTES, BodyRoom
from dicode_mcp.web.guard import caller_of
from dicode_mcp.web.hook_answers import accepted, ended
from dicode_mcp.web.hook_frame import page_headers
from dicode_mcp.web.problems import problem
from dicode_mcp.web.proxies import CLIENT

RETRY_AFTER_S = 5
BODIES_AT_ONCE = 8
"""So many bodies of the greatest length have room at once."""
_LOG_LINES = 20

STATUS: Mapping[Code, int] = {
    Code.TASK_NOT_READY: 503,
    Code.NOT_SUPPORTED: 415,
}
"""Where a webhook's answer has another status than that of its code."""
_RETRIED = frozenset({429, 503, 507})
# What a path could be read as by somebody who decodes it otherwise.
_ODD = (b"%2f", b"%5c", b"%00", b"\\")


class HookPages(Protocol):
    """What a webhook shows to a browser: GET and HEAD are offered to it before the task.

    Asked only for a webhook that is served, whose ``auth`` the caller has passed.
    """

    async def answer(self, request: Request, match: Match) -> Response | None:
        """Give the page or file that ``match.rest`` names; None when the task has none there."""
        ...


class NoPages:
    """For a server without pages."""

    async def answer(self, request: Request, match: Match) -> Response | None:
        """Show nothing."""
        return None


class Hooks:
    """The webhooks of tasks. They prove themselves, so strangers may call.

    ``starting`` tells whether the server does not take work yet; ``max_body`` is in bytes.
    """

    def __init__(
        self,
        hooks: HooksService,
        runs: RunsService,
        pages: HookPages,
        *,
        max_body: int,
        starting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hooks = hooks
        self._runs = runs
        self._pages = pages
        self._starting = starting
        self._room = BodyRoom(max(LEAST_BYTES, BODIES_AT_ONCE * max_body))

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``; they take every method."""
        return [Route(f"{PREFIX}{{path:path}}", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except DicodeError as error:
            answer = refused(error)
        except ClientDisconnect:
            return
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if self._starting():
            raise _starting()
        match = self._hooks.find(_path(request))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": await _allow(match)})
        caller = await caller_of(request) if match.task.spec.trigger.auth else None
        if request.method in ("GET", "HEAD"):
            require_served(match)
            require_caller(match.task, caller, "read")
            page = await self._pages.answer(request, match)
            if page is not None:
                return page
        methods = match.task.spec.trigger.methods
        if request.method not in methods and not (request.method == "HEAD" and "GET" in methods):
            return await _not_this_method(match)
        return await self._message(request, match, caller)

    async def _message(self, request: Request, match: Match, caller: Principal | None) -> Response:
        call = _call(request)
        self._hooks.admit(match, call, caller)
        if request.method == "HEAD":
            # It asks how a GET would be answered, and must change nothing.
            return Response(headers={"cache-control": "no-store"})
        async with self._room.body(request) as body:
            run = await self._hooks.start(call, body, caller)
        if wants_no_result(match, call):
            return accepted(run)
        result = await self._result(request, run)
        return await self._shown(request, match, result)

    async def _result(self, request: Request, run: Run) -> Run:
        """Wait for a run's end, as long as somebody is there to be told."""
        waiting = asyncio.create_task(self._hooks.wait(run.id))
        leaving = asyncio.create_task(_left(request.receive))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return waiting.result() if waiting.done() else run
        finally:
            waiting.cancel()
            leaving.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)

    async def _shown(self, request: Request, match: Match, run: Run) -> Response:
        if not run.status.ended:
            return accepted(run)
        frame = page_headers(request.url.scheme, request.headers["host"], match.path)
        logs = None
        if run.status is not RunStatus.SUCCESS:
            caller = await caller_of(request)
            if caller is not None and caller.allows("read", run.task_id):
                told = await self._runs.logs(caller, run.id, tail=_LOG_LINES)
                logs = told["lines"]
        return ended(run, frame, logs)


def refused(error: DicodeError) -> Response:
    """Give an error as a webhook's sender gets it: a problem, with when to come again."""
    answer = problem(error, status=STATUS.get(error.code))
    if answer.status_code in _RETRIED:
        seconds = error.data.get("retry_after_s", RETRY_AFTER_S)
        answer.headers["retry-after"] = str(seconds)
    return answer


def _path(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or b""
    lowered = raw.lower()
    if any(odd in lowered for odd in _ODD):
        raise DicodeError(Code.NOT_FOUND, "no webhook is at this path")
    return request.scope["path"]


def _call(request: Request) -> Call:
    state: Mapping[str, Any] = request.scope.get("state", {})
    return Call(
        method=request.method,
        path=request.scope["path"],
        query=request.scope["query_string"].decode("latin-1"),
        headers=[(name.lower(), value) for name, value in request.headers.items()],
        client=state.get(CLIENT),
    )


async def _allow(match: Match) -> str:
    methods: list[str] = list(match.task.spec.trigger.methods)
    if await asyncio.to_thread(has_page, match.task.folder):
        methods.append("GET")
    if "GET" in methods:
        methods.append("HEAD")
    return ", ".join(dict.fromkeys([*methods, "OPTIONS"]))


async def _not_this_method(match: Match) -> Response:
    allow = await _allow(match)
    answer = problem(
        DicodeError(
            Code.NOT_SUPPORTED,
            "this webhook does not take this method",
            hint=f"it takes {allow}; trigger.methods of its task says which start a run",
        ),
        status=405,
    )
    answer.headers["allow"] = allow
    return answer


def _starting() -> DicodeError:
    return DicodeError(
        Code.SHUTTING_DOWN,
        "the server has just been started and takes no message yet",
        hint="send it again in a moment",
        retry=Retry.BACKOFF,
    )


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Calls that a task's page makes: a page has an origin that is nobody's, and a key that says whose.

Such a call passes to the webhook of its own page and to nothing else; only then is the answer one
that the page may read. A page elsewhere that hides its origin has no key, and is refused here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.triggers.webhook.table import PREFIX, Match
from dicode_mcp.web.hook_frame import PAGE_KEY_HEADER, PageKeys, session_in
from dicode_mcp.web.problems import problem
from dicode_mcp.web.sessions import PAGE_SESSION

NOBODY = "null"
"""The origin that browsers send for a page without one."""
_EXPOSED = "content-type, retry-after, x-run-id"
_ACCEPTED = f"content-type, idempotency-key, last-event-id, {PAGE_KEY_HEADER}"
_PREFLIGHT_S = 600
# A browser fetches these with the page's origin and no header of ours; another page that fetches
# them could run or show them anyway.
_LOADED = frozenset({"js", "mjs", "css", "woff", "woff2", "ttf", "otf"})

_FOREIGN_SITES = ("cross-site", "same-site")

Find = Callable[[str], Match]
"""Gives the webhook that a decoded path belongs to; raises ``DicodeError`` when there is none."""
Files = Callable[[Request, Match], Awaitable[Response | None]]
"""Answers with a file of a webhook's page; None when there is none. Never starts a run."""


@dataclass(frozen=True, slots=True)
class PageGate:
    """What it takes to judge the calls of pages."""

    find: Find
    keys: PageKeys
    files: Files


def is_page_call(path: str, origins: list[str]) -> bool:
    """Tell whether a request is one that ``PageCalls`` judges: from nobody's page, to a webhook."""
    return origins == [NOBODY] and path.startswith(PREFIX)


def is_part_of_a_foreign_page(headers: Headers) -> bool:
    """Tell whether a browser asks on behalf of another site's page, other than to go there.

    Such a request has no Origin when it is for an image, a script or a frame. Browsers alone say
    so (``Sec-Fetch-Site``); a page without an origin is another site's to them.
    """
    if headers.get("sec-fetch-site") not in _FOREIGN_SITES:
        return False
    goes_there = headers.get("sec-fetch-mode") == "navigate"
    return not (goes_there and headers.get("sec-fetch-dest") == "document")


class PageCalls:
    """Middleware: lets a page's calls pass to its own webhook and lets the page read the answer."""

    def __init__(self, app: ASGIApp, gate: PageGate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge and pass on."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origins, match = headers.getlist("origin"), self._found(scope["path"])
        if not is_page_call(scope["path"], origins):
            if not origins and is_part_of_a_foreign_page(headers):
                await (await self._file(match, scope, receive))(scope, receive, send)
            else:
                await self._app(_without_key(scope), receive, _varied(send))
        elif match is not None and _is_preflight(scope, headers):
            await _preflight(match, send)
        elif match is not None and self._fits(match, headers):
            key = headers.get(PAGE_KEY_HEADER, "")
            called = _without_key(_of_session(scope, match, key))
            await self._app(called, receive, _readable(send))
        elif scope["path"].rpartition(".")[2].lower() in _LOADED:
            await (await self._file(match, scope, receive))(scope, receive, _readable(send))
        else:
            # A page that was loaded before a restart may read that it has to be loaded again.
            await problem(_NOT_YOURS)(scope, receive, _readable(send))

    def _found(self, path: str) -> Match | None:
        try:
            return self._gate.find(path)
        except DicodeError:
            return None

    def _fits(self, match: Match, headers: Headers) -> bool:
        key = headers.get(PAGE_KEY_HEADER, "")
        return self._gate.keys.fits(match.task.id, match.path, key)

    async def _file(self, match: Match | None, scope: Scope, receive: Receive) -> Response:
        """Give a file of a page that anybody may load as a part of a page, or the refusal."""
        if match is None or match.task.spec.trigger.auth or scope["method"] not in ("GET", "HEAD"):
            return problem(_NOT_YOURS)
        try:
            answer = await self._gate.files(Request(scope, receive), match)
        except DicodeError as error:
            return problem(error)
        return answer or problem(_NOT_YOURS)


_NOT_YOURS = DicodeError(
    Code.FORBIDDEN,
    "a page may call only the webhook it was loaded from, and only with the key it got",
    hint="load the page again; call with dicode.execute() or dicode.fetch(), not with fetch() or"
    " a form without data-dicode",
)


def _of_session(scope: Scope, match: Match, key: str) -> Scope:
    """Say whose session the page's key belongs to, for who may call where a task wants one."""
    session_id = session_in(key)
    if session_id is None or not match.task.spec.trigger.auth:
        return scope
    state = {**scope.get("state", {}), PAGE_SESSION: (session_id, match.task.id)}
    return {**scope, "state": state}


def _without_key(scope: Scope) -> Scope:
    """Keep the page's key from the task: what is in ``request`` may end up in a log."""
    name = PAGE_KEY_HEADER.encode()
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != name]}


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers


async def _preflight(match: Match, send: Send) -> None:
    methods = ", ".join(dict.fromkeys(("GET", "HEAD", *match.task.spec.trigger.methods)))
    head = {
        "access-control-allow-origin": NOBODY,
        "access-control-allow-methods": methods,
        "access-control-allow-headers": _ACCEPTED,
        "access-control-max-age": str(_PREFLIGHT_S),
        "vary": "Origin",
        "cache-control": "no-store",
    }
    raw = [(name.encode(), value.encode()) for name, value in head.items()]
    await send({"type": "http.response.start", "status": 204, "headers": raw})
    await send({"type": "http.response.body", "body": b""})


def _readable(send: Send) -> Send:
    """Let the page read the answer; never with credentials, which a page has none of."""
    return _with(
        send,
        (b"access-control-allow-origin", NOBODY.encode()),
        (b"access-control-expose-headers", _EXPOSED.encode()),
        (b"vary", b"Origin"),
    )


def _varied(send: Send) -> Send:
    return _with(send, (b"vary", b"Origin"))


def _with(send: Send, *headers: tuple[bytes, bytes]) -> Send:
    async def passed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return passed

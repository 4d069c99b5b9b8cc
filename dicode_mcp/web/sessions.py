"""Who has a session in this request: the one place that reads and writes its cookie.

A session is for the owner's pages and for tasks' pages that want one; never for /mcp or the API,
and never for a request that another site's page made.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicode_mcp.service.invitations import PAGE as SECRET_PAGE
from dicode_mcp.service.sessions import Session, Sessions
from dicode_mcp.triggers.webhook.table import PREFIX as HOOKS
from dicode_mcp.web.bearers import Proven
from dicode_mcp.web.frame import ICON_PATH, STYLE_PATH
from dicode_mcp.web.hosts import LOOPBACK_NAMES, parse_authority
from dicode_mcp.web.problems import wants_page

LOGIN_PATH = "/login"
LOGOUT_PATH = "/logout"
OPEN_PATHS = frozenset({LOGIN_PATH, LOGOUT_PATH, STYLE_PATH, ICON_PATH})
"""What everybody may ask for, so that somebody who has no session yet can begin one."""
PAGE_SESSION = "page_session"
"""Where ``PageCalls`` puts ``(session id, task id)`` of the page that calls, when it has one."""

_PAGES = frozenset({"/", "/runs", LOGIN_PATH, LOGOUT_PATH})
_BELOW = ("/runs/", "/tasks/", SECRET_PAGE)
_SAFE = frozenset({"GET", "HEAD"})
_SESSION, _PROVEN = "session", "session_proven"
_MAX_NEXT = 512


class SessionGuard:
    """Middleware: puts a request's session on it, and shows a browser without one where to log in.

    It refuses nothing: who may is the next guard's to say, which asks ``proven_by_session``.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look and pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        self._put(scope, state)
        if _SESSION in state or not (self._sessions.offered and _may_go_to_login(scope)):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Sent(scope, receive, send))

    def _put(self, scope: Scope, state: MutableMapping[str, Any]) -> None:
        page: tuple[str, str] | None = state.get(PAGE_SESSION)
        if page is not None:
            session = self._sessions.named(page[0])
            principal = session.page_principal(page[1]) if session else None
        else:
            token = cookie_of(scope) if _takes_sessions(scope) else None
            session = self._sessions.find(token) if token else None
            principal = session.principal if session else None
        if session is not None and principal is not None:
            state[_SESSION] = session
            state[_PROVEN] = Proven(principal, self._sessions.ends_ms(session))


def session_of(scope: Scope) -> Session | None:
    """Give the session of a request, as ``SessionGuard`` found it."""
    found: object = scope.get("state", {}).get(_SESSION)
    return found if isinstance(found, Session) else None


def proven_by_session(scope: Scope) -> Proven | None:
    """Give whom the session of a request proves; None without one."""
    found: object = scope.get("state", {}).get(_PROVEN)
    return found if isinstance(found, Proven) else None


def _takes_sessions(scope: Scope) -> bool:
    path, method = scope["path"], scope["method"]
    hook = path.startswith(HOOKS)
    if not (path in _PAGES or path.startswith(_BELOW) or hook):
        return False
    headers = Headers(scope=scope)
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    if method in _SAFE:
        return True
    # A form of ours comes from a page of ours, and a browser says so in one of the two. Webhooks
    # have none of ours: their pages call with a key of the page.
    return not hook and ("origin" in headers or "sec-fetch-site" in headers)


def _may_go_to_login(scope: Scope) -> bool:
    path = scope["path"]
    page = path in ("/", "/runs") or path.startswith((*_BELOW, HOOKS))
    return page and wants_page(scope) and "authorization" not in Headers(scope=scope)


class _Sent:
    """Sends on, but a redirect to the login page in the place of a 401."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start" and message["status"] == 401:
            self._replaced = True
            answer = RedirectResponse(_login_url(self._scope), 303, {"cache-control": "no-store"})
            await answer(self._scope, self._receive, self._send)
            return
        await self._send(message)


def _login_url(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    wanted = quote(scope["path"]) + (f"?{query}" if query else "")
    return f"{LOGIN_PATH}?next={quote(wanted, safe='')}"


def wanted_page(text: str | None) -> str:
    """Give where to go after a login: a page of ours, or the first one."""
    if text is None or len(text) > _MAX_NEXT or not text.isascii() or not text.isprintable():
        return "/"
    path = unquote(text.partition("?")[0])
    ours = path in ("/", "/runs") or path.startswith((*_BELOW, HOOKS))
    # A browser takes these for another site's address.
    return text if ours and not text.startswith("//") and "\\" not in path else "/"


# ── The cookie ──


def may_log_in(scope: Scope) -> bool:
    """Tell whether what is typed stays between the browser and us: TLS, or this very machine."""
    return scope["scheme"] == "https" or _is_local(scope)


def _is_local(scope: Scope) -> bool:
    authority = parse_authority(Headers(scope=scope).get("host", "").lower())
    return authority is not None and authority.host in LOOPBACK_NAMES


def _cookie_name(scope: Scope, name: str = "dicode") -> str:
    return f"__Host-{name}" if scope["scheme"] == "https" else name


def cookie_of(scope: Scope, name: str = "dicode") -> str | None:
    """Give a cookie's value; None when there is none, or more than one of the name."""
    wanted = _cookie_name(scope, name)
    pairs = [
        part.partition("=")
        for header in Headers(scope=scope).getlist("cookie")
        for part in header.split(";")
    ]
    found = [value.strip() for key, _, value in pairs if key.strip() == wanted]
    return found[0] if len(found) == 1 and found[0] else None


def put_cookie(answer: Response, scope: Scope, value: str, name: str = "dicode") -> None:
    """Give the browser a cookie of ours; an empty value takes it away."""
    answer.set_cookie(
        _cookie_name(scope, name),
        value,
        max_age=None if value else 0,
        path="/",
        secure=scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )

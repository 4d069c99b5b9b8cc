"""The gate before every route: Host, Origin, who calls, and how much they may send.

It decides nothing about tasks: it puts a principal on the request or answers with a problem.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor.lineage import Origin
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.refused_tasks import RefusedTasks
from dicode_mcp.web.callers import Judge
from dicode_mcp.web.hosts import HostPolicy, is_loopback
from dicode_mcp.web.peers import FindOwner
from dicode_mcp.web.problems import problem
from dicode_mcp.web.sock_diag import SocketOwner

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that anybody may read: they tell nothing but that the server is there."""
OPEN_PREFIXES = ("/hooks/git/",)
"""Paths below which anybody may call: the messages prove themselves."""

_ADMITTED = "admitted"


class HostGuard:
    """Refuses requests under a foreign name or from a foreign page, on every path (403)."""

    def __init__(self, app: ASGIApp, policy: HostPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check and pass on."""
        refused = None
        if scope["type"] != "lifespan":
            refused = self._refusal(Headers(scope=scope))
        if refused is not None:
            await problem(refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> DicodeError | None:
        host = headers.get("host")
        if len(headers.getlist("host")) != 1 or not self._policy.knows_host(host):
            return DicodeError(
                Code.FORBIDDEN,
                "the Host header does not name this server",
                hint="use localhost or 127.0.0.1, or add the name to server.allowed_hosts",
            )
        origins = headers.getlist("origin")
        if all(self._policy.knows_origin(origin, host or "") for origin in origins):
            return None
        return DicodeError(
            Code.FORBIDDEN,
            "the Origin header names a page that is not this server's",
            hint="add the origin to server.allowed_origins if its pages may call this server",
        )


class CallerGuard:
    """Puts the caller's principal on the request, or refuses it (401).

    Without a key only processes of the server's own user on this machine are callers, and of those
    none that is a task's. No key can be right in this version, so each is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        own_uid: int,
        find_owner: FindOwner,
        judge: Judge,
        principal: Callable[[], Principal],
        refused_tasks: RefusedTasks,
        open_paths: frozenset[str] = OPEN_PATHS,
    ) -> None:
        self._app = app
        self._own_uid = own_uid
        self._find_owner = find_owner
        self._judge = judge
        self._principal = principal
        self._refused_tasks = refused_tasks
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check and pass on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = await self._refusal(scope)
        if refused is not None:
            answer = problem(refused)
            # What was found holds for the connection; the next one is asked about anew.
            answer.headers["connection"] = "close"
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> DicodeError | None:
        if "authorization" in Headers(scope=scope):
            return DicodeError(
                Code.UNAUTHENTICATED,
                "the key is not valid",
                hint="this server has no keys; leave the Authorization header out",
            )
        if scope["path"] in self._open_paths or scope["path"].startswith(OPEN_PREFIXES):
            return None
        connection: dict[str, Any] = scope.get("state", {}).get("connection", {})
        if not connection.get(_ADMITTED):
            refused = await self._stranger(scope)
            if refused is not None:
                return refused
            connection[_ADMITTED] = True
        scope.setdefault("state", {})["principal"] = self._principal()
        return None

    async def _stranger(self, scope: Scope) -> DicodeError | None:
        """Ask the kernel who calls; give what to answer to one that may not."""
        owner = self._owner(scope.get("client"), scope.get("server"))
        if owner is None or owner.uid != self._own_uid:
            return _not_the_user(scope)
        caller = await self._judge(owner.inode)
        if caller.origin is Origin.CLIENT:
            return None
        self._refused_tasks.note(caller)
        return _A_TASK if caller.origin is Origin.TASK else _NOBODY

    def _owner(self, peer: Any, own: Any) -> SocketOwner | None:
        if not peer or not own or not is_loopback(peer[0]):
            return None
        return self._find_owner((peer[0], peer[1]), (own[0], own[1]))


_A_TASK = DicodeError(
    Code.UNAUTHENTICATED,
    "a task has no identity here: it may not call the server over HTTP",
    hint="use the SDK (`dicode.run_task`, …) and declare in permissions.dicode what the task calls",
)
_NOBODY = DicodeError(
    Code.UNAUTHENTICATED,
    "the server cannot see which process calls, so it might be a task's",
    hint="call from a process that the server's user can see in /proc (not from outside the"
    " server's container), or connect with `dicode mcp`; a task uses the SDK and"
    " permissions.dicode",
)


def _not_the_user(scope: Scope) -> DicodeError:
    peer = scope.get("client")
    if peer and is_loopback(peer[0]):
        message = "the caller is not known to be the user that runs this server"
    else:
        message = "calls from other machines need a key"
    return DicodeError(
        Code.UNAUTHENTICATED,
        message,
        hint="call as that user on this machine, or connect with `dicode mcp`, which uses a socket",
    )


class BodyLimit:
    """Answers 413 once a request's body is longer than allowed, holding none of it."""

    def __init__(self, app: ASGIApp, *, default: int, by_path: Mapping[str, int]) -> None:
        self._app = app
        self._default = default
        self._by_path = dict(by_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._by_path.get(scope["path"], self._default)
        if _declared(Headers(scope=scope)) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        await _Counted(self._app, limit).run(scope, receive, send)


class _Counted:
    """One request's body, counted as it comes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._taken = 0
        self._exceeded = False
        self._started = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted() -> Message:
            if self._exceeded:
                return {"type": "http.disconnect"}
            message = await receive()
            self._taken += len(message.get("body", b""))
            if self._taken <= self._limit:
                return message
            # The app sees its client leave; what it then says is not sent, the 413 is.
            self._exceeded = True
            return {"type": "http.disconnect"}

        async def passed(message: Message) -> None:
            if self._exceeded and not self._started:
                return
            self._started = True
            await send(message)

        try:
            await self._app(scope, counted, passed)
        except Exception:
            if not self._exceeded:
                raise
            log.debug("a request with too long a body was given up")
        if self._exceeded and not self._started:
            await _too_large(self._limit)(scope, receive, send)


def _declared(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _too_large(limit: int) -> ASGIApp:
    return problem(
        DicodeError(
            Code.TOO_LARGE,
            f"the request's body is longer than {limit} bytes",
            hint="send less; server.max_body sets the limit of webhooks and the API",
            data={"limit": limit},
        )
    )

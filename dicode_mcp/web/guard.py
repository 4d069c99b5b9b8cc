"""The gate before every route: Host, Origin, who calls, and how much they may send.

It decides nothing about tasks: it puts a principal on the request or answers with a problem.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor.lineage import Origin
from dicode_mcp.service.leases import Leases
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.refused_tasks import RefusedTasks
from dicode_mcp.triggers.webhook.table import PREFIX as HOOKS
from dicode_mcp.web.bearers import Bearers, Proven
from dicode_mcp.web.callers import Judge
from dicode_mcp.web.challenge import Challenge
from dicode_mcp.web.hook_frame import SCRIPT_PATH
from dicode_mcp.web.hosts import HostPolicy, is_loopback
from dicode_mcp.web.page_calls import NOBODY, is_page_call, is_part_of_a_foreign_page
from dicode_mcp.web.peers import FindOwner
from dicode_mcp.web.problems import problem
from dicode_mcp.web.proxies import CLIENT, passed_on
from dicode_mcp.web.sessions import proven_by_session
from dicode_mcp.web.sock_diag import SocketOwner

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz", SCRIPT_PATH})
"""Paths that anybody may read: they tell nothing but that the server is there."""
OPEN_PREFIXES = (HOOKS,)
"""Paths below which anybody may call: the messages prove themselves."""

_MCP_PATHS = ("/mcp", "/sse")
_ADMITTED = "admitted"
_NO_TASK = "no_task"
_IDENTIFY = "identify"


class HostGuard:
    """Refuses requests under a foreign name or from a foreign page, on every path (403).

    With ``pages`` the pages of tasks may ask for our script, and what they ask of webhooks is for
    ``PageCalls`` to judge.
    """

    def __init__(self, app: ASGIApp, policy: HostPolicy, pages: bool = False) -> None:
        self._app = app
        self._policy = policy
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check and pass on."""
        refused = None
        if scope["type"] != "lifespan":
            refused = self._refusal(Headers(scope=scope), scope["path"])
        if refused is not None:
            await problem(refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> DicodeError | None:
        host = headers.get("host")
        if len(headers.getlist("host")) != 1 or not self._policy.knows_host(host):
            return DicodeError(
                Code.FORBIDDEN,
                "the Host header does not name this server",
                hint="use localhost or 127.0.0.1, or add the name to server.allowed_hosts",
            )
        origins = headers.getlist("origin")
        if self._pages and is_page_call(path, origins):
            return None
        if not origins and is_part_of_a_foreign_page(headers):
            return None if self._pages and _is_for_pages(path) else _A_FOREIGN_PAGE
        if all(self._policy.knows_origin(origin, host or "") for origin in origins):
            return None
        return DicodeError(
            Code.FORBIDDEN,
            "the Origin header names a page that is not this server's",
            hint="add the origin to server.allowed_origins if its pages may call this server",
        )


def _is_for_pages(path: str) -> bool:
    return path == SCRIPT_PATH or path.startswith(HOOKS)


_A_FOREIGN_PAGE = DicodeError(
    Code.FORBIDDEN,
    "another site's page may not load this",
    hint="open it in a tab of its own, or call from a program",
)


class CallerGuard:
    """Puts the caller's principal on the request, or refuses it (401).

    An ``Authorization`` header is judged wherever it is sent, and what runs under it ends when it
    does; a task is nobody even with a right one. Without one only processes of the server's own
    user on this machine are callers, and of those none that is a task's, nor one that passes on
    what others ask; with ``proof_only`` nobody is. Below open paths nobody is asked; ``caller_of``
    tells who it is.
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
        bearers: Bearers | None = None,
        proof_only: bool = False,
        challenge: Challenge | None = None,
    ) -> None:
        self._app = app
        self._own_uid = own_uid
        self._find_owner = find_owner
        self._judge = judge
        self._principal = principal
        self._refused_tasks = refused_tasks
        self._open_paths = open_paths
        self._bearers = bearers
        self._proof_only = proof_only
        self._challenge = challenge or Challenge()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check and pass on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            proven = await self._proven(scope)
            if proven is None:
                refused = await self._refusal(scope)
            else:
                refused = await self._task(scope)
        except DicodeError as error:
            proven, refused = None, error
        if refused is not None:
            await self._refuse(refused, scope, receive, send)
        elif proven is not None and self._bearers is not None:
            await self._held(proven, self._bearers.leases, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _proven(self, scope: Scope) -> Proven | None:
        """Give whom a header or a session proves, None without one; raises UNAUTHENTICATED."""
        given = Headers(scope=scope).getlist("authorization")
        if not given:
            return proven_by_session(scope)
        if self._bearers is None:
            raise DicodeError(Code.UNAUTHENTICATED, "the key is not valid")
        peer = scope.get("state", {}).get(CLIENT)
        surface = "mcp" if scope["path"].startswith(_MCP_PATHS) else "http"
        return await self._bearers.prove(given, surface, peer)

    async def _task(self, scope: Scope) -> DicodeError | None:
        """Give what to answer to a task: it has no identity here, whatever it sends."""
        connection: dict[str, Any] = scope.get("state", {}).get("connection", {})
        if connection.get(_ADMITTED) or connection.get(_NO_TASK):
            return None
        owner = self._owner(scope.get("client"), scope.get("server"))
        if owner is not None:
            caller = await self._judge(owner.inode)
            # One of another user's that cannot be seen is none of ours.
            unseen = caller.origin is Origin.UNKNOWN and owner.uid == self._own_uid
            if unseen or caller.origin is Origin.TASK:
                self._refused_tasks.note(caller)
                return _NOBODY if unseen else _A_TASK
        connection[_NO_TASK] = True
        return None

    async def _held(
        self, proven: Proven, leases: Leases, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a request for as long as what proves its caller holds."""
        credential = proven.principal.credential or proven.principal.actor
        scope = _without_authorization(scope)
        scope.setdefault("state", {})["principal"] = proven.principal
        # The SDK serves a session only to whom it was opened for.
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=credential, scopes=[]))
        answer = _Begun(send)
        limit: asyncio.Timeout | None = None
        try:
            async with leases.hold(credential, proven.ends_ms) as limit:
                await self._app(scope, receive, answer)
        except TimeoutError:
            if limit is None or not limit.expired():
                raise
            log.info("a request ended with its key")
            if not answer.started:
                await self._refuse(_ended(), scope, receive, send)
            elif not answer.sized:
                await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, error: DicodeError, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(error)
        # What was found holds for the connection; the next one is asked about anew.
        answer.headers["connection"] = "close"
        if answer.status_code in (401, 403):
            answer.headers["www-authenticate"] = self._challenge.of(scope, answer.status_code)
        if "retry_after_s" in error.data:
            answer.headers["retry-after"] = str(error.data["retry_after_s"])
        await answer(scope, receive, send)

    async def _refusal(self, scope: Scope) -> DicodeError | None:
        state = scope.setdefault("state", {})
        if scope["path"] in self._open_paths or scope["path"].startswith(OPEN_PREFIXES):
            state[_IDENTIFY] = partial(self._identified, scope)
            return None
        if self._proof_only:
            return _wants_proof()
        sign = passed_on(scope)
        if sign is not None:
            return _passed_on(sign)
        refused = await self._stranger(scope)
        if refused is None:
            state["principal"] = self._principal()
        return refused

    async def _identified(self, scope: Scope) -> Principal | None:
        """Tell who calls an open path, as far as that is known: its own user, or nobody."""
        # A task's page is in its user's browser, and is not its user.
        if self._proof_only:
            return None
        if passed_on(scope) is not None or NOBODY in Headers(scope=scope).getlist("origin"):
            return None
        return None if await self._stranger(scope, note=False) else self._principal()

    async def _stranger(self, scope: Scope, *, note: bool = True) -> DicodeError | None:
        """Give what to answer to a caller that may not; what was found holds for a connection."""
        connection: dict[str, Any] = scope.get("state", {}).get("connection", {})
        if connection.get(_ADMITTED):
            return None
        refused = await self._asked(scope, note)
        if refused is None:
            connection[_ADMITTED] = True
        return refused

    async def _asked(self, scope: Scope, note: bool) -> DicodeError | None:
        """Ask the kernel who calls; give what to answer to one that may not."""
        owner = self._owner(scope.get("client"), scope.get("server"))
        if owner is None or owner.uid != self._own_uid:
            return _not_the_user(scope)
        caller = await self._judge(owner.inode)
        if caller.origin is Origin.CLIENT:
            return None
        if note:
            self._refused_tasks.note(caller)
        return _A_TASK if caller.origin is Origin.TASK else _NOBODY

    def _owner(self, peer: Any, own: Any) -> SocketOwner | None:
        if not peer or not own or not is_loopback(peer[0]):
            return None
        return self._find_owner((peer[0], peer[1]), (own[0], own[1]))


class _Begun:
    """Sends on, and knows how far an answer has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.sized = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.sized = any(name == b"content-length" for name, _ in message.get("headers", ()))
        await self._send(message)


def _without_authorization(scope: Scope) -> Scope:
    """Keep the key from everything behind the gate."""
    kept = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
    return {**scope, "headers": kept}


async def caller_of(request: Request) -> Principal | None:
    """Give who calls; on an open path it is found out only now, and None is a stranger."""
    state: dict[str, Any] = request.scope.get("state", {})
    known: object = state.get("principal")
    if isinstance(known, Principal):
        return known
    identify: Callable[[], Awaitable[Principal | None]] | None = state.get(_IDENTIFY)
    return await identify() if identify is not None else None


def _ended() -> DicodeError:
    return DicodeError(
        Code.UNAUTHENTICATED,
        "the key was revoked or expired while the request was served",
        hint="ask the server's owner for another one",
    )


def _wants_proof() -> DicodeError:
    return DicodeError(
        Code.UNAUTHENTICATED,
        "this server wants a key of everybody (server.auth)",
        hint="send Authorization: Bearer KEY; dicode keys create makes a key",
    )


def _passed_on(sign: str) -> DicodeError:
    return DicodeError(
        Code.UNAUTHENTICATED,
        f"the call may come from elsewhere, through a proxy or a tunnel: {sign}; it needs a key",
        hint="send Authorization: Bearer KEY (dicode keys create makes a key), or call"
        " http://127.0.0.1 directly, without a proxy's headers; below /hooks/ anybody may call",
    )


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
        hint="send Authorization: Bearer KEY (dicode keys create makes a key), call as that user on"
        " this machine, or connect with `dicode mcp`, which uses a socket",
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

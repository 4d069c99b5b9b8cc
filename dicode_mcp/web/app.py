"""The HTTP surface as one ASGI app: health, MCP in two transports, and the guards before them.

A route is a few lines over a service or hands over to the MCP SDK; rules live elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.service.principal import Principal, local_principal
from dicode_mcp.service.refused_tasks import RefusedTasks
from dicode_mcp.service.sessions import Sessions
from dicode_mcp.web.bearers import Bearers
from dicode_mcp.web.bound_sessions import BoundSessions
from dicode_mcp.web.callers import Callers, Judge, tasks_first
from dicode_mcp.web.challenge import Challenge
from dicode_mcp.web.guard import OPEN_PATHS, BodyLimit, CallerGuard, HostGuard
from dicode_mcp.web.holders import SocketHolders
from dicode_mcp.web.hosts import HostPolicy
from dicode_mcp.web.identity import Identity
from dicode_mcp.web.page_calls import PageCalls, PageGate
from dicode_mcp.web.peers import FindOwner, find_owner
from dicode_mcp.web.problems import on_crash, on_dicode_error, on_http_error, problem
from dicode_mcp.web.proxies import Proxied, Trusted
from dicode_mcp.web.refusals import Note, Refusals
from dicode_mcp.web.sessions import OPEN_PATHS as LOGIN_PATHS
from dicode_mcp.web.sessions import SessionGuard
from dicode_mcp.web.sse import MESSAGES_PATH, SseTransport

MCP_PATH = "/mcp"
MCP_MAX_BODY = 4 * 1024 * 1024
MCP_MAX_SESSIONS = 1024
"""Of the handshake era over Streamable HTTP; one more is answered 503 until one ends."""
MAX_BODY = 5 * 1024 * 1024


class Readiness(Enum):
    """Whether the server takes work."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What the app is told at its making. ``own_uid`` is whose keyless calls pass."""

    own_uid: int
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_body: int = MAX_BODY
    find_owner: FindOwner = find_owner
    judge: Judge | None = None
    """Tells whose process calls; None asks the kernel, and lets no task pass."""
    is_task: Callable[[int], bool] = field(default=lambda inode: False)
    """Tells of a socket of this process whether it carries a task's bytes."""
    principal: Callable[[], Principal] = field(default=lambda: local_principal("mcp"))
    trusted_proxies: tuple[str, ...] = ()
    public_url: str | None = None
    pages: PageGate | None = None
    """Judges the calls of tasks' pages; without it every page's call is refused."""
    bearers: Bearers | None = None
    """Judges Authorization headers; without it each is refused."""
    sessions: Sessions | None = None
    """Lets the owner log in to the pages; without it nobody can."""
    on_refused: Note | None = None
    """Is told of requests that were refused before anybody knew whose they are."""
    proof_only: bool = False
    """``server.auth``: the server's own user needs a key too."""
    identity: Identity | None = None
    """The identity provider whose tokens are taken beside our keys, if any."""


def create_app(
    mcp: Server[object],
    settings: WebSettings,
    *,
    readiness: Callable[[], Readiness],
    routes: Iterable[BaseRoute] = (),
) -> Starlette:
    """Build the app. Its lifespan serves the MCP sessions and must be entered once."""
    sessions = BoundSessions(
        mcp,
        # Host and Origin are checked for every route by the guard, with the configured names.
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=MCP_MAX_BODY,
        max_sessions=MCP_MAX_SESSIONS,
    )

    sse = SseTransport(mcp)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        bearers = settings.bearers
        async with sessions.run(), sse.run():
            if bearers is None:
                yield
            else:
                async with sessions.ending(bearers.leases):
                    yield

    async def readyz(request: Request) -> Response:
        return _ready_answer(readiness())

    app = Starlette(
        routes=[
            Route("/healthz", _healthz),
            Route("/readyz", readyz),
            Route(MCP_PATH, StreamableHTTPASGIApp(sessions)),
            *sse.routes(),
            *(settings.identity.routes() if settings.identity else ()),
            *routes,
        ],
        middleware=_guards(settings),
        exception_handlers={
            DicodeError: on_dicode_error,
            HTTPException: on_http_error,
            Exception: on_crash,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _guards(settings: WebSettings) -> list[Middleware]:
    # What the server is to be called from outside is a name of its own, and no more than that.
    public = (urlsplit(settings.public_url).netloc,) if settings.public_url else ()
    policy = HostPolicy((*settings.allowed_hosts, *public), settings.allowed_origins)
    trusted = Trusted(settings.trusted_proxies)
    identity = settings.identity
    return [
        Middleware(Proxied, trusted=trusted, public_url=settings.public_url),
        *([Middleware(Refusals, note=settings.on_refused)] if settings.on_refused else ()),
        Middleware(HostGuard, policy=policy, pages=settings.pages is not None),
        *([Middleware(PageCalls, gate=settings.pages)] if settings.pages else ()),
        *([Middleware(SessionGuard, sessions=settings.sessions)] if settings.sessions else ()),
        Middleware(
            CallerGuard,
            own_uid=settings.own_uid,
            find_owner=settings.find_owner,
            judge=tasks_first(
                settings.is_task, settings.judge or Callers(SocketHolders(os.getpid()).look).judge
            ),
            principal=settings.principal,
            refused_tasks=RefusedTasks("HTTP"),
            open_paths=OPEN_PATHS
            | (LOGIN_PATHS if settings.sessions else frozenset[str]())
            | (identity.open_paths if identity else frozenset[str]()),
            bearers=settings.bearers,
            proof_only=settings.proof_only,
            challenge=Challenge(identity is not None, settings.public_url),
        ),
        Middleware(
            BodyLimit,
            default=settings.max_body,
            by_path={MCP_PATH: MCP_MAX_BODY, MESSAGES_PATH: MCP_MAX_BODY},
        ),
    ]


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})


def _ready_answer(state: Readiness) -> Response:
    if state is Readiness.READY:
        return JSONResponse({"status": "ready"}, headers={"cache-control": "no-store"})
    draining = state is Readiness.DRAINING
    error = DicodeError(
        Code.SHUTTING_DOWN if draining else Code.UNREACHABLE,
        "the server is stopping" if draining else "the server has not read its sources yet",
        hint="ask again in a moment",
        retry=Retry.BACKOFF,
    )
    return problem(error, status=503)

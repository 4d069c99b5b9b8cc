"""uvicorn as a part of our process: it listens before we are ready and stops when we say.

It knows sockets and time; the app it serves is handed in.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.web.hosts import is_loopback
from dicode_mcp.web.protocol import Deadlines, protocol_with

log = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE_S = 5
_IN_FLIGHT_S = 1.0
"""How long a stop lets requests finish before it ends the sessions they belong to."""
_CUT_S = 2
"""How long a stop takes at most before uvicorn cancels what is still on."""
_MAX_HEAD = 32 * 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server listens; ``port`` is the real one."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def require_keys(host: str, *, usable: bool, named: bool) -> None:
    """Raise ``DicodeError(INVALID_CONFIG)`` for an address that others reach, unless it is safe.

    ``usable``: somebody can prove who he is. ``named``: the configuration says by which names the
    server is called.
    """
    if is_loopback(host):
        return
    if not usable:
        raise DicodeError(
            Code.INVALID_CONFIG,
            f"server.host {host!r} is reachable from other machines, and there is no key to call"
            " with",
            hint="start with server.host 127.0.0.1 (or --no-http), type"
            " `dicode keys create --name NAME --scopes read`, and start again; or set server.oauth;"
            " or keep server.host at 127.0.0.1",
        )
    if not named:
        raise DicodeError(
            Code.INVALID_CONFIG,
            f"server.host {host!r} is reachable from other machines, and no name is set by which"
            " they may call",
            hint="set server.public_url (https://NAME) or server.allowed_hosts ([NAME]): requests"
            " under any other name are refused",
        )


class HttpServer:
    """Serves one app on one address.

    ``on_stop`` is called first when stopping: it ends what would never end by itself (listen
    streams). Port 0 takes a free port.
    """

    def __init__(
        self,
        app: Starlette,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        deadlines: Deadlines | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._deadlines = deadlines or Deadlines()
        self._on_stop = on_stop

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[Listening]:
        """Serve while the block lasts; then end, within 3 s, whatever is still open.

        Raises ``DicodeError`` (PORT_IN_USE, INVALID_CONFIG) when it cannot listen.
        """
        listener = bind(self._host, self._port)
        bound = listener.getsockname()
        server = _Server(_config(self._app, self._deadlines))
        stopping = asyncio.Event()
        # Not a TaskGroup: that would wrap what the block raises in an ExceptionGroup.
        serving = asyncio.create_task(self._serve(server, listener, stopping), name="http")
        try:
            await _first(server.listening, serving)
            yield Listening(bound[0], bound[1])
        finally:
            stopping.set()
            await serving

    async def _serve(
        self, server: _Server, listener: socket.socket, stopping: asyncio.Event
    ) -> None:
        async with AsyncExitStack() as sessions:
            # anyio wants the sessions left by the task that entered them: this one.
            await sessions.enter_async_context(self._app.router.lifespan_context(self._app))
            uvicorn_task = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
            try:
                await _first(stopping, uvicorn_task)
            finally:
                self._on_stop()
                server.should_exit = True
                await asyncio.wait({uvicorn_task}, timeout=_IN_FLIGHT_S)
                # Ends the handshake era's sessions, and with them their open streams.
                await sessions.aclose()
                await uvicorn_task


def bind(host: str, port: int) -> socket.socket:
    """Make a bound socket; raises ``DicodeError`` with a sentence that says what to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise _unusable(host, port, error) from error
    # Without the protocol asyncio does not see that this is TCP and leaves Nagle's delay on: 40 ms.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _unusable(host, port, error) from error
    return listener


def _unusable(host: str, port: int, error: OSError) -> DicodeError:
    if error.errno == errno.EADDRINUSE:
        return DicodeError(
            Code.PORT_IN_USE,
            f"port {port} on {host} is taken by another program",
            hint="stop that program, or set server.port in dicode.yaml to a free port",
        )
    return DicodeError(
        Code.INVALID_CONFIG,
        f"cannot listen on {host}:{port}: {error.strerror or error}",
        hint="set server.host and server.port in dicode.yaml",
    )


def _config(app: Starlette, deadlines: Deadlines) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol_with(deadlines),
        ws="none",
        lifespan="off",
        # It believes any local process about who calls, even about the port that tells whose it is.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CUT_S,
        h11_max_incomplete_event_size=_MAX_HEAD,
    )


async def _first(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done():
        task.result()
        raise DicodeError(Code.INTERNAL, "the HTTP server ended by itself")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and with an event that says that it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # The daemon owns the process's signals.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

"""The older SSE transport: a session is one stream of events, its messages come by POST.

It knows HTTP and JSON-RPC messages; what they mean is the server's. Both protocol eras run over it.
A client that does not read its stream is not served further, and costs a buffer, not the server.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import mcp_types as t
from mcp.server import Server
from mcp.server.runner import serve_dual_era_loop
from mcp.shared.message import SessionMessage
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.service.principal import Principal

log = logging.getLogger(__name__)

SSE_PATH = "/sse"
MESSAGES_PATH = "/sse/messages"
MAX_SESSIONS = 256
MAX_WAITING = 64
"""Messages of a session that the server has not begun to read."""

_HEAD: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store, no-transform"),
        (b"x-accel-buffering", b"no"),
    ],
}


@dataclass(frozen=True, slots=True)
class SseTimes:
    """In seconds: how often a silent stream gets a sign of life, how long a stalled one may be."""

    ping_s: float = 15.0
    stall_s: float = 5.0


class SseTransport:
    """Serves ``server`` to sessions while ``run`` runs; ``routes`` are its two paths."""

    def __init__(
        self,
        server: Server[Any],
        *,
        max_sessions: int = MAX_SESSIONS,
        times: SseTimes | None = None,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._server = server
        self._max_sessions = max_sessions
        self._times = times or SseTimes()
        self._new_id = new_id
        self._sessions: dict[str, _Session] = {}

    def routes(self) -> list[BaseRoute]:
        """Give the routes of the stream and of the messages."""
        return [
            Route(SSE_PATH, self._open, methods=["GET"]),
            Route(MESSAGES_PATH, self._message, methods=["POST"]),
        ]

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Serve while the block lasts, then end every stream."""
        try:
            yield
        finally:
            for session in self._sessions.values():
                session.ended.set()

    async def _open(self, request: Request) -> Response:
        if request.method != "GET":
            return Response(status_code=405, headers={"allow": "GET"})
        if len(self._sessions) >= self._max_sessions:
            raise DicodeError(
                Code.RATE_LIMITED,
                f"the server already serves {self._max_sessions} event streams",
                hint="close idle clients, or use /mcp, which needs no open stream",
                retry=Retry.BACKOFF,
            )
        return _Opened(self, _Session(self._new_id(), request.state.principal, self._times))

    async def serve(self, session: _Session, receive: Receive, send: Send) -> None:
        """Keep one session until its client leaves or the server stops."""
        self._sessions[session.id] = session
        try:
            await session.serve(self._server, receive, send)
        finally:
            del self._sessions[session.id]

    async def _message(self, request: Request) -> Response:
        session = self._sessions.get(request.query_params.get("session_id", ""))
        if session is None or session.principal != request.state.principal:
            raise _unknown_session()
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refused(t.INVALID_REQUEST, "the content type must be application/json", 415)
        try:
            message = t.jsonrpc_message_adapter.validate_json(await request.body(), by_name=False)
        except ValidationError as error:
            broken = error.errors(include_input=False)[0]["type"] == "json_invalid"
            code = t.PARSE_ERROR if broken else t.INVALID_REQUEST
            return _refused(code, "the body is not one JSON-RPC 2.0 message", 400)
        await session.take(SessionMessage(message))
        return PlainTextResponse("Accepted", 202)


class _Opened(Response):
    """The answer that is a session's stream."""

    def __init__(self, transport: SseTransport, session: _Session) -> None:
        super().__init__()
        self._transport = transport
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._transport.serve(self._session, receive, send)


class _Session:
    """One client's stream, and the messages on their way to the server."""

    def __init__(self, session_id: str, principal: Principal, times: SseTimes) -> None:
        self.id = session_id
        self.principal = principal
        self.ended = asyncio.Event()
        self._times = times
        self._writing = asyncio.Lock()
        self._incoming, self._taken = anyio.create_memory_object_stream[SessionMessage | Exception](
            MAX_WAITING
        )

    async def take(self, message: SessionMessage) -> None:
        """Pass a message on; raises RATE_LIMITED when the client does not take its answers."""
        try:
            async with asyncio.timeout(self._times.stall_s):
                async with self._writing:
                    pass
                await self._incoming.send(message)
        except TimeoutError:
            raise DicodeError(
                Code.RATE_LIMITED,
                "this session's messages are not taken: its event stream is not being read",
                hint="read the event stream, then send the message again",
                retry=Retry.BACKOFF,
            ) from None
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise _unknown_session() from None

    async def serve(self, server: Server[Any], receive: Receive, send: Send) -> None:
        """Answer messages until the client leaves or ``ended`` is set."""
        answers, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        with self._incoming, self._taken, answers, outgoing:
            await send(_HEAD)
            await self._write(send, "endpoint", f"{MESSAGES_PATH}?session_id={self.id}")
            async with asyncio.TaskGroup() as group:
                parts = [
                    group.create_task(part)
                    for part in (
                        self._converse(server, answers),
                        self._pump(outgoing, send),
                        self._ping(send),
                        _left(receive),
                        self.ended.wait(),
                    )
                ]
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in parts:
                    part.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _converse(self, server: Server[Any], answers: Any) -> None:
        try:
            await serve_dual_era_loop(
                server, self._taken, answers, lifespan_state=self.principal, session_id=self.id
            )
        except Exception:
            log.exception("an SSE session failed")

    async def _pump(self, outgoing: Any, send: Send) -> None:
        # Closed with the pump: an answer that nobody will take must not be waited for.
        with outgoing:
            async for item in outgoing:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                await self._write(send, "message", text)

    async def _ping(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._times.ping_s)
            await self._write_raw(send, b": ping\n\n")

    async def _write(self, send: Send, event: str, data: str) -> None:
        # JSON text has no line ends of its own, so one data line holds it.
        await self._write_raw(send, f"event: {event}\ndata: {data}\n\n".encode())

    async def _write_raw(self, send: Send, chunk: bytes) -> None:
        async with self._writing:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _unknown_session() -> DicodeError:
    return DicodeError(
        Code.NOT_FOUND,
        "there is no such SSE session",
        hint=f"open {SSE_PATH} again; its first event names where to post",
    )


def _refused(code: int, message: str, status: int) -> Response:
    error = {"code": code, "message": message}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status)

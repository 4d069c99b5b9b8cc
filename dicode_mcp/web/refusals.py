"""Requests that were refused before anybody knew whose they are: told to the audit log.

Refusals of a known caller are noted by the service that refused him.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicode_mcp.errors import Code
from dicode_mcp.service.principal import Principal
from dicode_mcp.web.proxies import CLIENT
from dicode_mcp.web.sessions import LOGIN_PATH

Note = Callable[[Principal, str, str], None]
"""Takes who called, the method and path, and the outcome."""

_OUTCOMES = {
    401: Code.UNAUTHENTICATED.value,
    403: Code.FORBIDDEN.value,
    429: Code.RATE_LIMITED.value,
}
_MAX_PATH = 128


class Refusals:
    """Middleware: looks at the status of each answer."""

    def __init__(self, app: ASGIApp, note: Note) -> None:
        self._app = app
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and note a refusal."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                outcome = _OUTCOMES.get(message["status"])
                if outcome is not None and not _is_noted_elsewhere(scope):
                    self._note(_stranger(scope), _what(scope), outcome)
            await send(message)

        await self._app(scope, receive, watched)


def _is_noted_elsewhere(scope: Scope) -> bool:
    known = isinstance(scope.get("state", {}).get("principal"), Principal)
    return known or scope["path"] == LOGIN_PATH or "authorization" in Headers(scope=scope)


def _stranger(scope: Scope) -> Principal:
    client = scope.get("state", {}).get(CLIENT) or "?"
    return Principal(actor=f"peer:{client}", surface="http", verbs=frozenset())


def _what(scope: Scope) -> str:
    path = "".join(letter for letter in scope["path"][:_MAX_PATH] if letter.isprintable())
    return f"{scope['method'][:16]} {path}"

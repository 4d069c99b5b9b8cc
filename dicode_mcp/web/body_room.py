"""Room in memory for bodies that strangers send: so much for all of them together, and no more."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.requests import Request

from dicode_mcp.errors import Code, DicodeError, Retry

LEAST_BYTES = 64 * 2**20
RETRY_AFTER_S = 5


class BodyRoom:
    """Holds bodies while they are needed. ``total`` is in bytes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0

    @property
    def held(self) -> int:
        """How many bytes are held now."""
        return self._held

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncGenerator[bytes]:
        """Read a body and hold it for the block. Raises RATE_LIMITED when the room is full."""
        taken = 0
        parts: list[bytes] = []
        try:
            async for part in request.stream():
                if self._held + len(part) > self._total:
                    raise _full()
                self._held += len(part)
                taken += len(part)
                parts.append(part)
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self._held -= taken


def _full() -> DicodeError:
    return DicodeError(
        Code.RATE_LIMITED,
        "too many large messages are on their way to this server's webhooks",
        hint="send it again in a moment",
        data={"retry_after_s": RETRY_AFTER_S},
        retry=Retry.BACKOFF,
    )

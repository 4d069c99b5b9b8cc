"""An answer that is a stream of server-sent events, until its source or its reader ends.

Bounded by backpressure: the next event is asked for when the one before it was taken.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dicode_mcp.service.events import Told

RETRY_MS = 2_000
_BEAT = b": ping\n\n"

Events = AsyncGenerator[Told | None]


class EventStream(Response):
    """Sends events; None among them is a sign of life. Whoever leaves ends the source."""

    def __init__(self, events: Events, headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._events = events
        self._own = dict(headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        head = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store, no-transform",
            "x-accel-buffering": "no",
            "x-content-type-options": "nosniff",
            **self._own,
        }
        raw = [(name.encode(), value.encode("latin-1")) for name, value in head.items()]
        async with aclosing(self._events):
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            if scope["method"] != "HEAD":
                await self._until_either_ends(receive, send)
            await send({"type": "http.response.body", "body": b""})

    async def _until_either_ends(self, receive: Receive, send: Send) -> None:
        # Not a TaskGroup: what the source raises is for the server's log as it is.
        parts = [asyncio.create_task(self._pump(send)), asyncio.create_task(_left(receive))]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        for part in done:
            part.result()

    async def _pump(self, send: Send) -> None:
        await _write(send, f"retry: {RETRY_MS}\n\n".encode())
        async for told in self._events:
            await _write(send, _BEAT if told is None else encode(told))


def encode(told: Told) -> bytes:
    """Write one event. JSON text has no line ends of its own, so one data line holds it."""
    data: Any = json.dumps(told.data, ensure_ascii=False, separators=(",", ":"))
    numbered = f"id: {told.id}\n" if told.id is not None else ""
    return f"{numbered}event: {told.event}\ndata: {data}\n\n".encode("utf-8", "replace")


async def _write(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Sessions of the handshake era over Streamable HTTP, which end with the key that opened them.

The SDK serves a session only to the credential it was opened with. Here it is also forgotten when
that credential is revoked. The only module that reaches into the SDK's sessions; a test proves
that what it reaches for is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from dicode_mcp.service.leases import Leases


class BoundSessions(StreamableHTTPSessionManager):
    """The SDK's manager of sessions, told of revoked keys."""

    @property
    def open(self) -> int:
        """How many sessions are open."""
        return len(self._server_instances)

    @asynccontextmanager
    async def ending(self, leases: Leases) -> AsyncGenerator[None]:
        """End the sessions of credentials that end, while the block lasts."""
        with leases.follow() as ended:
            # Not a TaskGroup: that would wrap what the block raises in an ExceptionGroup.
            following = asyncio.create_task(self._follow(ended), name="mcp sessions")
            try:
                yield
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def _follow(self, ended: asyncio.Queue[str]) -> None:
        while True:
            await self.end_of(await ended.get())

    async def end_of(self, credential: str) -> None:
        """End every session that a credential opened."""
        own = [id for id, who in self._session_owners.items() if who["client_id"] == credential]
        for session_id in own:
            transport = self._server_instances.get(session_id)
            if transport is not None:
                await self._discard_session(session_id, transport)

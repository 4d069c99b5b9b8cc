"""How long a proof of who calls holds: what is done under it ends when it does.

It knows neither keys nor HTTP: a credential is a text, and what is held is a block of code.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from dicode_mcp.clock import Clock


class Leases:
    """The blocks that run under a credential now. Belongs to one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, set[asyncio.Timeout]] = {}
        self._followers: set[asyncio.Queue[str]] = set()

    def held(self, credential: str) -> int:
        """Count the blocks that run under a credential."""
        return len(self._held.get(credential, ()))

    @asynccontextmanager
    async def hold(self, credential: str, ends_ms: int | None) -> AsyncGenerator[asyncio.Timeout]:
        """Run the block until the credential ends, which raises ``TimeoutError`` out of it.

        What is given tells with ``expired()`` whether that is why.
        """
        loop = asyncio.get_running_loop()
        left_ms = None if ends_ms is None else max(0, ends_ms - self._clock.now_ms())
        async with asyncio.timeout_at(
            None if left_ms is None else loop.time() + left_ms / 1000
        ) as limit:
            held = self._held.setdefault(credential, set())
            held.add(limit)
            try:
                yield limit
            finally:
                held.discard(limit)
                if not held and self._held.get(credential) is held:
                    del self._held[credential]

    def end(self, credential: str) -> None:
        """End every block under a credential now, and tell those that follow."""
        now = asyncio.get_running_loop().time()
        for limit in self._held.get(credential, ()):
            if not limit.expired():
                limit.reschedule(now)
        for follower in self._followers:
            follower.put_nowait(credential)

    @contextmanager
    def follow(self) -> Generator[asyncio.Queue[str]]:
        """Give where each credential is put that ends early."""
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._followers.add(queue)
        try:
            yield queue
        finally:
            self._followers.discard(queue)

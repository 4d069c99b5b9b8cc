"""Time, passed in: the wall clock in ms since the epoch, a monotonic clock, and waiting."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Clock(Protocol):
    """What the house knows of time."""

    def now_ms(self) -> int:
        """Give the wall clock as milliseconds since 1970-01-01T00:00Z."""
        ...

    def monotonic(self) -> float:
        """Give seconds that never go back; only differences mean anything."""
        ...

    async def wait(self, wake: asyncio.Event, seconds: float | None) -> bool:
        """Wait until ``wake`` is set or ``seconds`` of ``monotonic`` have passed; None is no limit.

        Tells whether it was set.
        """
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Read the wall clock."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Read the monotonic clock."""
        return time.monotonic()

    async def wait(self, wake: asyncio.Event, seconds: float | None) -> bool:
        """Wait for ``wake``, at most ``seconds``."""
        # Here, because the command line reads times too and asyncio is half of its start.
        import asyncio

        try:
            async with asyncio.timeout(seconds):
                await wake.wait()
        except TimeoutError:
            return False
        return True


def iso(ms: int) -> str:
    """Write milliseconds since the epoch as ISO 8601 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> int:
    """Read an ISO 8601 time (a missing zone means UTC) as milliseconds since the epoch.

    Raises ``ValueError`` when ``text`` is not such a time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)

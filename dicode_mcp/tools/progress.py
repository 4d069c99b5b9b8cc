"""What a waiting caller is told while its run goes on: how far it is, and what it logs.

MCP wants every progress value of a call to be greater than the one before. The first thing told
picks the scale: what the task itself counts, or the seconds waited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import mcp_types as t

from dicode_mcp.clock import Clock
from dicode_mcp.events import LogAppended, RunProgress
from dicode_mcp.runs.logs import Level
from dicode_mcp.tools.client import Client, NoClient
from dicode_mcp.tools.registry import Report
from dicode_mcp.tools.sizes import MAX_MESSAGE, cut

HEARTBEAT_S = 4.0

_LEVELS: dict[Level, t.LoggingLevel] = {
    Level.DEBUG: "debug",
    Level.INFO: "info",
    Level.WARN: "warning",
    Level.ERROR: "error",
    Level.SECURITY: "critical",
}


@dataclass(frozen=True, slots=True)
class Told:
    """One progress notification: done, total, message."""

    done: float
    total: float | None
    message: str


class Scale:
    """Keeps one call's progress values growing."""

    def __init__(self) -> None:
        self._by_task: bool | None = None
        self._last = 0.0

    def beat(self, waited_s: float) -> Told | None:
        """Say that the run is still on, unless the task tells its own progress."""
        if self._by_task:
            return None
        self._by_task = False
        return self._grown(waited_s, None, f"still running after {waited_s:.0f} s")

    def of_task(self, progress: RunProgress, waited_s: float) -> Told | None:
        """Pass on what the task tells; None when it did not get further."""
        if self._by_task is None:
            self._by_task = True
        if self._by_task:
            return self._grown(progress.done, progress.total, progress.message)
        of = f"/{progress.total:g}" if progress.total is not None else ""
        return self._grown(waited_s, None, f"{progress.done:g}{of} {progress.message}".strip())

    def _grown(self, done: float, total: float | None, message: str) -> Told | None:
        if done <= self._last:
            return None
        self._last = done
        return Told(done, total, message)


class Teller:
    """Tells one caller: beats by time, what the task says, and its log to who asked for logs."""

    def __init__(
        self,
        report: Report,
        clock: Clock,
        *,
        client: Client | None = None,
        every_s: float = HEARTBEAT_S,
    ) -> None:
        self._report = report
        self._client = client or NoClient()
        self._clock = clock
        self._began = clock.monotonic()
        self._every_s = every_s
        self._scale = Scale()

    async def on_told(self, told: RunProgress | LogAppended) -> None:
        """Pass on a task's progress or lines of its log."""
        if isinstance(told, RunProgress):
            await self._tell(self._scale.of_task(told, self._waited()))
        elif self._client.wants_log:
            for line in told.lines:
                message = {"run_id": told.run_id, "message": cut(line.message, MAX_MESSAGE)}
                await self._client.log(_LEVELS[line.level], {**message, "seq": line.seq})

    @asynccontextmanager
    async def beating(self) -> AsyncGenerator[None]:
        """Beat while the block lasts."""
        # Not a TaskGroup: that would wrap what the block raises in an ExceptionGroup.
        heart = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._tell(self._scale.beat(self._waited()))

    def _waited(self) -> float:
        return round(self._clock.monotonic() - self._began, 3)

    async def _tell(self, told: Told | None) -> None:
        if told is not None:
            await self._report(told.done, told.total, told.message)

"""Waiting for a condition in a test, with a deadline that only a failure reaches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

DEADLINE_S = 20.0


async def until(condition: Callable[[], object], deadline: float = DEADLINE_S) -> None:
    """Return when ``condition()`` is true; raises ``TimeoutError`` after ``deadline`` seconds."""
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110  What is waited for has no event to wait on.
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncGenerator[asyncio.Task[None], None]:
    """Run something endless while the block lasts; an error of its own fails the test."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error

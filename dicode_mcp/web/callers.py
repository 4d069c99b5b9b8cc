"""Whose work a caller over TCP is: asked off the event loop, and never more than one look at once.

A look answers every caller that waits when it begins. However many connections are opened, looking
takes at most half of one thread's time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from dicode_mcp.executor.lineage import Lineage, Origin

Judge = Callable[[int], Awaitable[Lineage]]
"""Tells whose work the holder of a socket is, from the socket's inode."""

Look = Callable[[Collection[int]], Mapping[int, Lineage]]
"""The same for several at once; blocks."""


def tasks_first(is_task: Callable[[int], bool], judge: Judge) -> Judge:
    """Judge as ``judge`` does but for sockets of this very process that carry a task's bytes."""

    async def judged(inode: int) -> Lineage:
        if is_task(inode):
            return Lineage(Origin.TASK, os.getpid())
        return await judge(inode)

    return judged


@dataclass(slots=True, eq=False)
class _Caller:
    inode: int
    verdict: Lineage | None = None


class Callers:
    """Turns many questions into few looks. Belongs to one event loop."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._waiting: set[_Caller] = set()
        self._turn = asyncio.Lock()
        self._not_before = 0.0

    async def judge(self, inode: int) -> Lineage:
        """Tell whose work the holder of ``inode`` is, from a look that began after this call."""
        caller = _Caller(inode)
        self._waiting.add(caller)
        try:
            async with self._turn:
                # Unless the look that has just ended was for this one too.
                return caller.verdict or await self._look_for(caller)
        finally:
            self._waiting.discard(caller)

    async def _look_for(self, leader: _Caller) -> Lineage:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._not_before - loop.time()))
        asking = [caller for caller in self._waiting if caller.verdict is None]
        began = loop.time()
        try:
            answers = await asyncio.to_thread(self._look, {caller.inode for caller in asking})
        finally:
            self._not_before = 2 * loop.time() - began
        for caller in asking:
            caller.verdict = answers[caller.inode]
        return answers[leader.inode]

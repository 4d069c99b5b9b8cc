"""Holding a run to its limits by looking at its processes, where nothing of the kernel's does.

That is so on a machine with neither namespaces nor control groups for the server: a container, as
a rule.
"""

from __future__ import annotations

import asyncio

from dicode_mcp.cage.watch import Watch
from dicode_mcp.clock import Clock
from dicode_mcp.executor import tree
from dicode_mcp.executor.process import SpawnedProcess

_LONGEST_PAUSE_S = 0.1


async def watch_tree(process: SpawnedProcess, clock: Clock) -> None:
    """Look until cancelled."""
    seen: list[tree.Stat] = []

    def send(number: int) -> None:
        # The group at once, which leaves no time to start another; then who has left it.
        tree.send_group(process.pid, number)
        for stat in seen:
            tree.send(stat, number)

    watch = Watch(dict(process.watched), True, send)
    never = asyncio.Event()
    while True:
        seen = await process.processes()
        watch.look([stat.pid for stat in seen])
        process.note_limit(watch.broken, watch.met)
        await clock.wait(never, min(_LONGEST_PAUSE_S, max(0.05, watch.pause)))

"""Counts what happens while the server runs, for ``/metrics``: runs by task, how long they lasted.

It counts events of its own life; the past is in ``get_stats``. Task names are bounded: when there
are too many, further ones are counted together.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

from dicode_mcp.events import EventBus, RunChanged
from dicode_mcp.runs.model import RunStatus

MOST_TASKS = 500
OTHERS = "_others"
"""What stands for further tasks; no task can be named so."""
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_BUFFER = 50_000
_ENDED = {status.value for status in RunStatus if status.ended}


class Meter:
    """Listens to the bus while ``run`` runs; its counts only grow."""

    def __init__(self, bus: EventBus, most_tasks: int = MOST_TASKS) -> None:
        self._bus = bus
        self._most_tasks = most_tasks
        self.ended: dict[str, Counter[str]] = defaultdict(Counter)
        """Runs that ended, by task and status."""
        self.lasted = [0] * (len(BOUNDS_S) + 1)
        """Runs by how long they lasted: up to each of ``BOUNDS_S``, and beyond."""
        self.lasted_s = 0.0
        self.missed = 0
        """Events that came faster than they were counted."""

    async def run(self) -> None:
        """Count until cancelled."""
        with self._bus.subscribe(_BUFFER, kinds=(RunChanged,)) as events:
            async for event in events:
                self.missed = events.lost
                if isinstance(event, RunChanged) and event.status in _ENDED:
                    self.count(event)

    def count(self, event: RunChanged) -> None:
        """Count one end."""
        name = event.task_id
        if name not in self.ended and len(self.ended) >= self._most_tasks:
            name = OTHERS
        self.ended[name][event.status] += 1
        if event.duration_ms is not None:
            seconds = event.duration_ms / 1000
            self.lasted[bisect_left(BOUNDS_S, seconds)] += 1
            self.lasted_s += seconds

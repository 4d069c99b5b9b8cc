"""What the operator is told of tasks that tried to use the server as if they were its user.

The first attempt is told at once; what follows shortly after is counted, so that a task cannot
fill the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dicode_mcp.executor.lineage import Lineage, Origin

log = logging.getLogger("dicode.callers")

QUIET_S = 10.0


class RefusedTasks:
    """Tells of refusals on one surface, at most one line in ``QUIET_S`` seconds."""

    def __init__(self, surface: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._surface = surface
        self._monotonic = monotonic
        self._quiet_until = float("-inf")
        self._untold = 0

    def note(self, caller: Lineage) -> None:
        """Take one refusal."""
        now = self._monotonic()
        if now < self._quiet_until:
            self._untold += 1
            return
        before = f"; {self._untold} more since the last such line" if self._untold else ""
        log.warning("%s, and was refused%s", self._sentence(caller), before)
        self._quiet_until = now + QUIET_S
        self._untold = 0

    def _sentence(self, caller: Lineage) -> str:
        if caller.origin is not Origin.TASK:
            pid = f" (pid {caller.pid})" if caller.pid else ""
            return f"a process{pid} that may be a task's called over {self._surface}"
        run = f"run {caller.run_id}, " if caller.run_id else ""
        return f"a task ({run}pid {caller.pid}) called the server over {self._surface}"

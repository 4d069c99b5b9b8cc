"""Limits on what all processes of a run use together, where the kernel has no group for them.

Somebody looks at them from time to time: too much memory or too many of them ends all, too much of
the processors makes all stop for a while. In a cage that is its first process, elsewhere the
server.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

LOOK_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_LONGEST_STOP_S = 2.0


class Watch:
    """``limits``: bytes of ``memory``, ``pids`` (threads count), ``cpu`` in processors.

    ``ends`` tells whether too many processes end the run; otherwise the kernel refuses to make
    them, and it is only noted. ``send`` sends a signal to all of them.
    """

    def __init__(self, limits: dict[str, float], ends: bool, send: Callable[[int], None]) -> None:
        self._memory = limits.get("memory")
        self._pids = limits.get("pids")
        self._cpu = limits.get("cpu")
        self._ends = ends
        self._send = send
        self._last = time.monotonic()
        self._spent = 0.0
        self._owed = 0.0
        self._stopped_until = 0.0
        self.broken = ""
        """The limit that ended the run."""
        self.met = ""
        """The limit that it came to."""

    @property
    def pause(self) -> float:
        """How long to wait until the next look."""
        left = self._stopped_until - time.monotonic() if self._stopped_until else LOOK_S
        return min(LOOK_S, max(0.001, left))

    def look(self, processes: list[int], ended: float = 0.0) -> None:
        """Look at all processes and do what is to be done.

        ``ended`` are the processor seconds of those that are there no more.
        """
        if self._pids is not None or self._cpu is not None:
            stats = [found for found in map(stat, processes) if found is not None]
            # Before the memory: where there are too many, they take too much of that as well.
            self._count(sum(threads for threads, _ in stats))
            self._charge(sum(spent for _, spent in stats) + ended)
        if self._memory is not None and sum(map(memory, processes)) > self._memory:
            self._end("memory")

    def last(self, processes: list[int]) -> None:
        """Look at what the run's own process has left: a run that could not start more leaves many.

        It is among them no more, nor is the one it may have failed to start.
        """
        stats = [found for found in map(stat, processes) if found is not None]
        if self._pids is not None and sum(threads for threads, _ in stats) + 2 >= self._pids:
            self.met = "pids"

    def _count(self, threads: int) -> None:
        if self._pids is None or threads < self._pids:
            return
        self.met = "pids"
        if self._ends and threads > self._pids:
            self._end("pids")

    def _end(self, kind: str) -> None:
        self.broken = self.broken or kind
        self._send(signal.SIGKILL)

    def _charge(self, spent: float) -> None:
        """Stop all for as long as they have had more than their part."""
        if self._cpu is None:
            return
        now = time.monotonic()
        # What has ended and is not waited for yet is in neither sum for a moment.
        fresh, self._spent = max(0.0, spent - self._spent), max(spent, self._spent)
        self._owed = max(0.0, self._owed + fresh - self._cpu * (now - self._last))
        self._last = now
        if self._stopped_until and now >= self._stopped_until:
            self._stopped_until = 0.0
            self._send(signal.SIGCONT)
        elif not self._stopped_until and self._owed > self._cpu * LOOK_S:
            self.met = self.met or "cpu"
            self._stopped_until = now + min(_LONGEST_STOP_S, self._owed / self._cpu)
            self._send(signal.SIGSTOP)


def memory(pid: int) -> int:
    """Give the bytes of memory that are a process's own."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def stat(pid: int) -> tuple[int, float] | None:
    """Give a process's threads, and the processor seconds of it and of those it has waited for."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # The name in parentheses may hold anything.
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[17]), sum(map(int, fields[11:15])) / _TICK
    except (OSError, IndexError, ValueError):
        return None

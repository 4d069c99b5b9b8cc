"""Noticing the end of a child without reaping it, so that its pid stays its own meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable


class ExitWatch:
    """Calls back once, on the loop, when a child has ended; it can then be reaped."""

    def __init__(self, pid: int, ended: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._fd = -1
        try:
            self._fd = os.pidfd_open(pid)
        except (OSError, AttributeError):
            threading.Thread(
                target=self._wait, args=(pid,), name=f"exit-{pid}", daemon=True
            ).start()
        else:
            self._loop.add_reader(self._fd, self._readable)

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        self.close()
        self._ended()

    def _wait(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            _block_until_exit(pid)
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ended)


def _block_until_exit(pid: int) -> None:
    if sys.platform == "darwin":
        end = select.kevent(
            pid,
            filter=select.KQ_FILTER_PROC,
            flags=select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
            fflags=select.KQ_NOTE_EXIT,
        )
        with contextlib.closing(select.kqueue()) as queue:
            queue.control([end], 1, None)
    else:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

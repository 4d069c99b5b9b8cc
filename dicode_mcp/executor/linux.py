"""What Linux offers to hold a process tree: adoption of orphans, and death with the server.

Elsewhere each of these does nothing and says so by its return value.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def become_subreaper() -> bool:
    """Make this process the parent of orphans below it; the daemon calls it once at start.

    Tells whether the system can. Without it strays are found by their environment alone.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def is_subreaper() -> bool:
    """Tell whether orphans below this process come to it."""
    if sys.platform != "linux":
        return False
    import ctypes

    found = ctypes.c_int(0)
    libc = ctypes.CDLL(None, use_errno=True)
    told = libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    return told == 0 and found.value > 0


class Lifeline:
    """Ends a process group with SIGKILL when this process dies, however it dies.

    The kernel signals the owner of a pipe's reading end when the last writing end closes, and
    closes ours when we die. It needs no help from the child and, unlike PR_SET_PDEATHSIG, reaches
    the whole group, does not depend on which thread spawned, and survives any exec.

    A reading end that is itself closed first stays silent, and whether a dying process closes
    its descriptors upwards or downwards is the kernel's affair: so there is one on either side.
    """

    def __init__(self, group: int) -> None:
        self._fds: list[int] = []
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._arm(group)

    def _arm(self, group: int) -> None:
        import fcntl

        low, high = os.pipe()
        self._fds = [low, high]
        if low > high:
            self._fds[1] = fcntl.fcntl(high, fcntl.F_DUPFD_CLOEXEC, low)
            os.close(high)
        again = os.open(f"/proc/self/fd/{low}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._fds.insert(1, fcntl.fcntl(again, fcntl.F_DUPFD_CLOEXEC, self._fds[1]))
        finally:
            os.close(again)
        for fd in self._fds[:2]:
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(fd, fcntl.F_SETOWN, -group)
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)

    def cut(self) -> None:
        """Let go without a signal: the reading ends first. Must come before the reaping."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

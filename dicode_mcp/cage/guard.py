"""The two processes that stand by a caged one: the keeper outside, the first process inside.

The keeper is the one the server started; it ends when the cage is empty. The first process owns
the cage: its end is the end of everything in there. It reaps what loses its parent, tells how the
task ended, gives what outlived it a moment, and watches memory where the kernel has no group for
it.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    # ``signal`` itself is a layer of enumerations that takes longer to import than all the rest.
    import _signal as signal

_LEFTOVER_GRACE_S = 1.0
_LOOK_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


def keep(first: int) -> None:
    """Wait for the first process and end as it did. Never returns.

    What the server sends to the group is for the task; the keeper stays to the end.
    """
    stay()
    _, status = os.waitpid(first, 0)
    os._exit(_code(status))


def stay() -> None:
    """Take no notice of what is sent to the group."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def own(task: int, report: int, memory: int | None) -> None:
    """Be the first process: wait for the task, clear up, tell the server. Never returns.

    ``memory`` is a limit in bytes on what all processes inside hold together, to be watched here.
    """
    watch = _Watch(memory) if memory else None
    status, rss = _await_task(task, watch)
    left = _clear()
    told = f'{{"end": {status}, "max_rss": {rss}, "strays": {left}'
    if watch is not None and watch.broken:
        told += ', "limit": "memory"'
    try:
        os.write(report, (told + "}\n").encode())
    except OSError:
        pass  # the server has gone
    os._exit(_code(status))


class _Watch:
    """Looks at the memory of all processes inside, and ends them when it is too much."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.broken = False

    def look(self) -> None:
        if sum(_memory(pid) for pid in _others()) > self._limit:
            self.broken = True
            os.kill(-1, signal.SIGKILL)


def _await_task(task: int, watch: _Watch | None) -> tuple[int, int]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG if watch else 0)
        if pid == task:
            return status, usage.ru_maxrss * 1024
        if pid == 0 and watch:
            watch.look()
            signal.sigtimedwait({signal.SIGCHLD}, _LOOK_S)


def _clear() -> int:
    """End what outlived the task: TERM, a second, KILL. Gives how many there were."""
    found: set[int] = set()
    until = time.monotonic() + _LEFTOVER_GRACE_S
    while True:
        if not _reap():
            return len(found)
        fresh = set(_others()) - found
        found |= fresh
        late = time.monotonic() > until
        for pid in _others() if late else fresh:
            _send(pid, signal.SIGKILL if late else signal.SIGTERM)
            if not late:
                _send(pid, signal.SIGCONT)
        signal.sigtimedwait({signal.SIGCHLD}, 0.02)


def _reap() -> bool:
    """Collect the dead; tells whether anyone is left."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _others() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def _memory(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            fields: list[Any] = file.read().split()
        return (int(fields[1]) - int(fields[2])) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code

"""The two processes that stand by a caged one: the keeper outside, the first process inside.

The keeper is the one the server started; it ends when the cage is empty. The first process owns
the cage: its end is the end of everything in there. It reaps what loses its parent, tells how the
task ended, gives what outlived it a moment, and watches what all use where the kernel has no
group for them.
"""

from __future__ import annotations

import os
import resource
import time

from dicode_mcp.cage.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    # ``signal`` itself is a layer of enumerations that takes longer to import than all the rest.
    import _signal as signal

_LEFTOVER_GRACE_S = 1.0


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


def rest(begun: int) -> None:
    """Wait until the other end of a pipe is closed: the task's process has begun, or has ended."""
    os.read(begun, 1)
    os.close(begun)


def own(task: int, report: int, watched: dict[str, Any] | None) -> None:
    """Be the first process: wait for the task, clear up, tell the server. Never returns.

    ``watched`` are limits on what all processes inside use together, to be watched here.
    """
    watch = Watch(watched["limits"], watched["ends"], _send_all) if watched else None
    status, rss = _await_task(task, watch)
    left = _clear()
    told = f'{{"end": {status}, "max_rss": {rss}, "strays": {left}, "cpu": {_spent():.6f}'
    if watch is not None and watch.broken:
        told += f', "limit": "{watch.broken}"'
    if watch is not None and watch.met:
        told += f', "met": "{watch.met}"'
    try:
        os.write(report, (told + "}\n").encode())
    except OSError:
        pass  # the server has gone
    os._exit(_code(status))


def _await_task(task: int, watch: Watch | None) -> tuple[int, int]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG if watch else 0)
        if pid == task:
            if watch:
                watch.last(_others())
            return status, usage.ru_maxrss * 1024
        if pid == 0 and watch:
            watch.look(_others(), _ended())
            signal.sigtimedwait({signal.SIGCHLD}, watch.pause)


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


def _spent() -> float:
    """Give the processor time in seconds of this process and of all it has waited for."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime + _ended()


def _ended() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _others() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def _send_all(number: int) -> None:
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        pass  # the last one has just ended


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


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code

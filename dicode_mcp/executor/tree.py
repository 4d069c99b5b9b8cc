"""Finding and ending what a main process leaves behind: its group, and those who fled it.

Reads ``/proc``; where there is none (macOS) only the group can be reached. Knows pids, not tasks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

PROC = "/proc"
_NARROW = 256


@dataclass(frozen=True, slots=True)
class Stat:
    """A line of ``/proc/<pid>/stat``. ``start`` is in clock ticks since boot."""

    pid: int
    state: str
    ppid: int
    group: int
    session: int
    start: int

    @property
    def dead(self) -> bool:
        """Whether it only waits to be reaped."""
        return self.state in "ZX"


@dataclass(frozen=True, slots=True)
class Root:
    """The main process of a tree, and the environment its descendants carry."""

    pid: int
    start: int
    run_id: str
    instance_id: str

    @property
    def marks(self) -> frozenset[bytes]:
        """The environment entries that make a process one of ours; empty when not marked."""
        if not self.run_id or not self.instance_id:
            return frozenset()
        return frozenset(
            {f"DICODE_RUN_ID={self.run_id}".encode(), _instance_mark(self.instance_id)}
        )


def _instance_mark(instance_id: str) -> bytes:
    return f"DICODE_INSTANCE={instance_id}".encode()


def read_stat(pid: int, proc: str = PROC) -> Stat | None:
    """Read a process's line; None when there is no such process (or no ``/proc``)."""
    try:
        raw = read_bytes(f"{proc}/{pid}/stat")
        # The name in parentheses may hold anything, parentheses and spaces too.
        rest = raw[raw.rindex(b")") + 2 :].split()
        return Stat(pid, rest[0].decode(), int(rest[1]), int(rest[2]), int(rest[3]), int(rest[19]))
    except (OSError, ValueError, IndexError):
        return None


def read_environ(pid: int) -> frozenset[bytes]:
    """Read a process's first environment; empty when it cannot be read or has ended."""
    try:
        return frozenset(read_bytes(f"{PROC}/{pid}/environ").split(b"\0"))
    except OSError:
        return frozenset()


def read_pipes(pid: int) -> frozenset[str]:
    """Name the pipes a process holds, as ``pipe_name`` does; empty when it cannot be seen."""
    found: set[str] = set()
    folder = f"{PROC}/{pid}/fd"
    try:
        for fd in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"{folder}/{fd}"))
    except OSError:
        return frozenset()
    return frozenset(name for name in found if name.startswith("pipe:"))


def pipe_name(fd: int) -> str:
    """Name a pipe as ``/proc`` does; both of its ends have the same name."""
    return f"pipe:[{os.fstat(fd).st_ino}]"


def read_bytes(path: str) -> bytes:
    """Read a file of ``/proc`` to its end. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def all_pids(proc: str = PROC) -> list[int]:
    """List every process that can be seen; empty without ``/proc``."""
    try:
        return [int(name) for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return []


def recent_pids(main: int) -> range | None:
    """Give the pids handed out after ``main``'s, when they are few; None when unknown or many.

    Right only while the pids cannot have gone once around since ``main`` started, so for short
    runs. It spares the walk over every process of the machine.
    """
    try:
        last = int(read_bytes(f"{PROC}/loadavg").split()[-1])
    except (OSError, ValueError, IndexError):
        return None
    return range(main + 1, last + 1) if main <= last <= main + _NARROW else None


def members(root: Root, pids: Iterable[int], known: Collection[tuple[int, int]] = ()) -> list[Stat]:
    """Find the processes of a tree among ``pids`` by group, session and mark; not the main one.

    The dead ones of the group and session too, and those that are ``known`` (pid and start).
    """
    found: list[Stat] = []
    for pid in pids:
        if pid in (os.getpid(), root.pid):
            continue
        stat = read_stat(pid)
        if stat is not None and _belongs(root, stat, known):
            found.append(stat)
    return found


def _belongs(root: Root, stat: Stat, known: Collection[tuple[int, int]]) -> bool:
    if stat.start < root.start:
        return False
    if root.pid in (stat.group, stat.session) or (stat.pid, stat.start) in known:
        return True
    marks = root.marks
    return not stat.dead and bool(marks) and marks <= read_environ(stat.pid)


def reap(stats: Iterable[Stat]) -> None:
    """Collect those that are dead and were adopted by this process."""
    us = os.getpid()
    for stat in stats:
        if stat.dead and stat.ppid == us:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(stat.pid, os.WNOHANG)


def send(stat: Stat, signum: int) -> None:
    """Signal exactly this process: a pid that was reused meanwhile is left alone."""
    try:
        fd = os.pidfd_open(stat.pid)
    except (OSError, AttributeError):
        return
    try:
        now = read_stat(stat.pid)
        if now is not None and now.start == stat.start:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, signum)
    finally:
        os.close(fd)


def send_group(group: int, signum: int) -> None:
    """Signal a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)


def sweep(
    instance_id: str, *, spare: Collection[int], pause: Callable[[float], None] = time.sleep
) -> int:
    """Kill every process that carries the instance's mark; give how many there were.

    Spares this process, its ancestors and the sessions in ``spare``. Blocks until they are gone,
    or for five seconds (a process in the kernel's hands dies when the kernel lets go).
    """
    mark = _instance_mark(instance_id)
    kept = _ancestors()
    seen: set[tuple[int, int]] = set()
    for _ in range(500):
        alive = [s for s in _marked(mark, kept) if s.session not in spare]
        if not alive:
            break
        for stat in alive:
            seen.add((stat.pid, stat.start))
            send(stat, signal.SIGKILL)
        pause(0.01)
    return len(seen)


def _marked(mark: bytes, kept: Collection[int]) -> list[Stat]:
    stats = (read_stat(pid) for pid in all_pids() if pid not in kept)
    return [s for s in stats if s is not None and not s.dead and mark in read_environ(s.pid)]


def _ancestors() -> frozenset[int]:
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        stat = read_stat(pid)
        pid = stat.ppid if stat else 0
    return frozenset(found)

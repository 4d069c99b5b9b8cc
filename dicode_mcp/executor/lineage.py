"""Whose work a process is: a task's or a client's, told by who stands above it and by the mark.

The server adopts the orphans below it (``become_subreaper``) and starts nothing but tasks and their
helpers. So what a task starts stays below the server, however it forks and whatever it does to its
environment. The mark, ``DICODE_RUN_ID``, tells the tasks of other servers, as long as they keep it.
Reads ``/proc``; knows no surface and no connection.
"""

from __future__ import annotations

import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from dicode_mcp.executor.tree import PROC, Stat, all_pids, read_stat

_MARK = b"DICODE_RUN_ID="
_RUN_ID = re.compile(rb"[0-9a-z]{1,32}")
_MAX_DEPTH = 256
_TRIES = 3
_WALL = 0x40000000
"""``__WALL`` of <sys/wait.h>: children of every kind, also those that end without a signal."""


class Origin(Enum):
    """Whose work a process is."""

    CLIENT = "client"
    TASK = "task"
    UNKNOWN = "unknown"
    """It cannot be told, which must be treated as a task."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What is known of a process. ``run_id`` is what its mark says, empty where it has none."""

    origin: Origin
    pid: int = 0
    run_id: str = ""


def is_foreign(pid: int) -> bool:
    """Tell whether a process is another user's, also where ``/proc`` hides it (``hidepid``)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def lineage(
    pid: int,
    own_pid: int,
    proc: str = PROC,
    *,
    is_foreign: Callable[[int], bool] = is_foreign,
) -> Lineage:
    """Tell whose work ``pid`` is, from the view of the server ``own_pid`` (itself a client).

    Tasks run as the server's user. So above the process another user's may have an environment
    that cannot be read (sudo, sshd): it carries no mark. Where it cannot be seen at all, the line
    ends with it: between a task and the server stands nobody of another user, unless the task
    could become that user and needs no identity from here.
    """
    if pid == own_pid:
        return Lineage(Origin.CLIENT, pid)
    for _ in range(_TRIES):
        line = _line(pid, own_pid, proc, is_foreign)
        if not line:
            continue
        below = line[-1].pid == own_pid
        marks = [_mark(stat.pid, proc) for stat in line if stat.pid != own_pid]
        found = [mark for mark in marks if mark is not None]
        run_id = next((mark for mark in found if mark), "")
        if below or any(found):
            return Lineage(Origin.TASK, pid, run_id)
        if marks[0] is None:
            break
        # Twice the same: nobody in the line ended, and no number was reused, in between.
        if _identities(line) == _identities(_line(pid, own_pid, proc, is_foreign)):
            return Lineage(Origin.CLIENT, pid)
    return Lineage(Origin.UNKNOWN, pid)


def descendants(own_pid: int, proc: str = PROC) -> list[int]:
    """List the processes below the server at one look; one that forks meanwhile may be missed."""
    if own_pid == os.getpid() and not _has_children():
        return []
    below: dict[int, list[int]] = defaultdict(list)
    for pid in all_pids(proc):
        stat = read_stat(pid, proc)
        if stat is not None:
            below[stat.ppid].append(pid)
    found: list[int] = []
    waiting = [own_pid]
    while waiting:
        children = below.pop(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _has_children() -> bool:
    """Ask the kernel, which answers in a microsecond; collects nobody."""
    if sys.platform != "linux":
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return False
    return True


def _line(pid: int, own_pid: int, proc: str, is_foreign: Callable[[int], bool]) -> list[Stat]:
    """Give the process and those above it, up to the server, the first of all or a hidden one.

    Empty when one of them has ended meanwhile, or hides although it is the server's user's.
    """
    found: list[Stat] = []
    while pid > 0:
        stat = read_stat(pid, proc)
        if stat is None and found and is_foreign(pid):
            break
        if stat is None or len(found) == _MAX_DEPTH:
            return []
        found.append(stat)
        pid = 0 if pid == own_pid else stat.ppid
    return found


def _identities(line: list[Stat]) -> list[tuple[int, int, int]]:
    return [(stat.pid, stat.start, stat.ppid) for stat in line]


def _mark(pid: int, proc: str) -> str | None:
    """Give the run a process says it belongs to; empty for none, None when it is unreadable."""
    try:
        with open(f"{proc}/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return None
    marks = [entry.removeprefix(_MARK) for entry in entries if entry.startswith(_MARK)]
    if not marks:
        return ""
    return marks[0].decode() if _RUN_ID.fullmatch(marks[0]) else "unknown"

"""Who is at the other end of a unix socket by the kernel's word, and whether it may talk there.

Whose work a process is, the executor tells; what a refusal looks like on the wire is the socket's
business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from dicode_mcp.credentials import Peer, ReadPeer, read_peer
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor.lineage import Lineage, Origin, lineage
from dicode_mcp.executor.tree import PROC
from dicode_mcp.service.refused_tasks import RefusedTasks

__all__ = ["JudgeProcess", "Peer", "ReadPeer", "judge_process", "read_peer", "require_client"]

JudgeProcess = Callable[[int], Lineage]
"""Tells whose work a process is."""

_REFUSALS: Mapping[Origin, tuple[str, str]] = {
    Origin.TASK: (
        "a task may not use the server's socket",
        "use the SDK (`dicode.run_task`, …) and declare in permissions.dicode what the task calls",
    ),
    Origin.UNKNOWN: (
        "the server cannot see the calling process and all those above it, so it might be a task's",
        "call from a process that the server's user can see in /proc; a task uses the SDK and"
        " permissions.dicode",
    ),
}


def judge_process(pid: int, *, proc: str = PROC) -> Lineage:
    """Tell whose work ``pid`` is; a client's on a system that shows no processes (macOS)."""
    if not Path(proc).is_dir():
        return Lineage(Origin.CLIENT, pid)
    return lineage(pid, os.getpid(), proc)


def require_client(
    peer: Peer, *, own_uid: int, judge: JudgeProcess, refused_tasks: RefusedTasks
) -> None:
    """Raise ``DicodeError(FORBIDDEN)`` unless ``peer`` is the server's own user and no task."""
    if peer.uid != own_uid:
        raise DicodeError(
            Code.FORBIDDEN,
            "this socket serves only the user that runs the server",
            hint="start your own server with `dicode serve`, or use its HTTP port with a key",
        )
    if peer.pid is None:
        return
    caller = judge(peer.pid)
    if caller.origin is not Origin.CLIENT:
        refused_tasks.note(caller)
        message, hint = _REFUSALS[caller.origin]
        raise DicodeError(Code.FORBIDDEN, message, hint=hint)

"""Who is at the other end of a unix socket by the kernel's word, and whether it is a task.

It knows credentials and process environments; what a refusal looks like is the socket's business.
"""

from __future__ import annotations

import os
from pathlib import Path

from dicode_mcp.credentials import Peer, ReadPeer, read_peer
from dicode_mcp.errors import Code, DicodeError

__all__ = ["Peer", "ReadPeer", "own_identity", "read_peer", "require_trusted"]

_TASK_MARK = b"DICODE_RUN_ID="
_MAX_ANCESTORS = 64


def require_trusted(peer: Peer, *, own_uid: int, own_pid: int, proc: Path = Path("/proc")) -> None:
    """Raise ``DicodeError(FORBIDDEN)`` unless ``peer`` is the server's own user and no task."""
    if peer.uid != own_uid:
        raise DicodeError(
            Code.FORBIDDEN,
            "this socket serves only the user that runs the server",
            hint="start your own server with `dicode serve`, or use its HTTP port with a key",
        )
    if peer.pid is not None and proc.is_dir() and _behind_task(peer.pid, own_pid, proc):
        raise DicodeError(
            Code.FORBIDDEN,
            "a task may not use the server's socket",
            hint="use the SDK (`dicode.run_task`, …) with the permissions it names",
        )


def _behind_task(pid: int, own_pid: int, proc: Path) -> bool:
    """Tell whether ``pid`` or a process above it runs a task; unreadable counts as yes."""
    for depth in range(_MAX_ANCESTORS):
        if pid == own_pid or (pid <= 1 and depth > 0):
            return False
        try:
            environment = (proc / str(pid) / "environ").read_bytes()
            parent = _parent(proc / str(pid) / "stat")
        except OSError:
            # The peer itself must be readable; above it another user's process (sudo, sshd) is
            # no task of ours, since tasks and clients run as this server's user.
            return depth == 0
        if _carries_mark(environment):
            return True
        pid = parent
    return True


def _carries_mark(environment: bytes) -> bool:
    return any(entry.startswith(_TASK_MARK) for entry in environment.split(b"\0"))


def _parent(stat: Path) -> int:
    # The second field is the command in parentheses and may hold anything; count from its end.
    return int(stat.read_bytes().rpartition(b")")[2].split()[1])


def own_identity() -> tuple[int, int]:
    """Give this process's effective uid and pid."""
    return os.geteuid(), os.getpid()

"""Limits a process sets on itself: the kernel's per-process ones. Groups are made by the server."""

from __future__ import annotations

import os
import resource
from _struct import pack

from dicode_mcp.cage.syscalls import syscall

RESOURCES = {
    "cpu": 0,
    "fsize": 1,
    "core": 4,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "msgqueue": 12,
}


def join(path: str) -> None:
    """Put this process into a control group (version 1) by its file. Raises ``OSError``."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def apply(limits: dict[str, int]) -> None:
    """Set each limit, soft and hard, where it is below the one in force. Raises ``OSError``."""
    for name, value in limits.items():
        _, hard = resource.getrlimit(RESOURCES[name])
        if hard != resource.RLIM_INFINITY and hard < value:
            value = hard
        syscall("prlimit64", 0, RESOURCES[name], pack("=QQ", value, value), None)

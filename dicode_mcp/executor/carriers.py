"""How servers on one machine know each other as carriers of what tasks send.

A server connects outward for its tasks. To another server such a connection would look like one of
the user's own programs. So a process that makes them holds a socket with a name that every server
of this network can see, and whoever holds one has no identity anywhere. It can be given up by its
owner alone, and who takes such a name for nothing only loses by it.
"""

from __future__ import annotations

import os
import secrets
import socket

from dicode_mcp.executor.tree import PROC, read_bytes

_NAME = "dicode.carrier."
_ABSTRACT = b"@" + _NAME.encode()


def hold_mark() -> socket.socket:
    """Mark this process for as long as the socket is open. Raises ``OSError``."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.bind(f"\0{_NAME}{os.getpid()}.{secrets.token_hex(8)}")
    except BaseException:
        made.close()
        raise
    return made


def carries(pid: int, proc: str = PROC) -> bool:
    """Tell whether a process is marked; also where that cannot be seen."""
    try:
        marks = _marks(proc)
        return bool(marks) and not marks.isdisjoint(_links(pid, proc))
    except OSError:
        return True


def _marks(proc: str) -> frozenset[str]:
    try:
        table = read_bytes(f"{proc}/net/unix")
    except FileNotFoundError:
        return frozenset()
    found: set[str] = set()
    for line in table.splitlines():
        # Num RefCount Protocol Flags Type St Inode Path; a path may hold spaces, an inode not.
        fields = line.split(None, 7)
        if len(fields) == 8 and fields[7].startswith(_ABSTRACT):
            found.add(f"socket:[{fields[6].decode()}]")
    return frozenset(found)


def _links(pid: int, proc: str) -> set[str]:
    folder = f"{proc}/{pid}/fd"
    found: set[str] = set()
    for name in os.listdir(folder):
        try:
            found.add(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            continue
    return found

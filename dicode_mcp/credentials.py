"""Who is at the other end of a unix socket, by the kernel's word."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

from dicode_mcp.errors import Code, DicodeError

# <sys/un.h> on macOS; the socket module does not name them.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_XUCRED_SIZE = 76


@dataclass(frozen=True, slots=True)
class Peer:
    """A connected process. ``pid`` is None where the system does not tell it."""

    uid: int
    pid: int | None


ReadPeer = Callable[[socket.socket], Peer]


def read_peer(connection: socket.socket) -> Peer:
    """Ask the kernel who connected; raises ``DicodeError(FORBIDDEN)`` where it cannot say."""
    try:
        if sys.platform == "linux":
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, _gid = struct.unpack("iII", raw)
            return Peer(uid, pid)
        if sys.platform == "darwin":
            raw = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE)
            return Peer(struct.unpack_from("II", raw)[1], None)
    except OSError:
        pass
    raise DicodeError(Code.FORBIDDEN, "this system does not tell who connects to the socket")

"""Whose socket is at the other end of a loopback TCP connection, by the kernel's word.

Linux knows each TCP socket's owner. It is asked directly; where it does not answer such questions,
its list in ``/proc/net/tcp`` and ``tcp6`` is read: the peer's own socket is the line whose
addresses are ours the other way round. Elsewhere the owner cannot be told and None is given, which
callers must treat as a stranger.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from pathlib import Path

from dicode_mcp.web.sock_diag import Address, SocketOwner, ask_owner

Endpoint = tuple[str, int]
"""An address and a port, as ASGI gives them."""

FindOwner = Callable[[Endpoint, Endpoint], SocketOwner | None]
"""Gives the peer's socket and its uid, from the peer's endpoint and ours."""

_PROC_NET = Path("/proc/net")
_MAPPED = b"\0" * 10 + b"\xff\xff"
_FAMILIES = {4: "tcp", 6: "tcp6"}

# Only a socket that a process still holds has its owner's uid. Orphans and TIME_WAIT entries show
# uid 0, which would make a server run as root trust anybody who hangs up quickly.
_HELD_STATES = frozenset({1, 4, 5})


def find_owner(peer: Endpoint, own: Endpoint) -> SocketOwner | None:
    """Give the owner of ``peer``'s socket of the connection to ``own``; None if unknown."""
    asked = _ask(peer, own)
    return asked if asked is not None else read_owner(peer, own)


def read_owner(peer: Endpoint, own: Endpoint, proc_net: Path = _PROC_NET) -> SocketOwner | None:
    """Give the same by reading the kernel's list of sockets."""
    for family in (4, 6):
        needle = _line_part(peer, own, family)
        if needle is None:
            continue
        owner = _owner_in(proc_net / _FAMILIES[family], needle)
        if owner is not None:
            return owner
    return None


def _ask(peer: Endpoint, own: Endpoint) -> SocketOwner | None:
    if sys.platform != "linux":
        return None
    local, remote = _plain(peer[0]), _plain(own[0])
    if local is None or remote is None or local.version != remote.version:
        return None
    return _held(ask_owner((local, peer[1]), (remote, own[1])))


def _held(owner: SocketOwner | None) -> SocketOwner | None:
    if owner is None or owner.state not in _HELD_STATES or owner.inode == 0:
        return None
    return owner


def _plain(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _owner_in(table: Path, needle: str) -> SocketOwner | None:
    try:
        text = table.read_text("ascii")
    except OSError:
        return None
    at = text.find(needle)
    if at < 0:
        return None
    fields = text[text.rfind("\n", 0, at) + 1 : text.find("\n", at)].split()
    # sl local remote state queues timer retransmits uid timeout inode …
    return _held(SocketOwner(int(fields[7]), int(fields[3], 16), int(fields[9])))


def _line_part(peer: Endpoint, own: Endpoint, family: int) -> str | None:
    local, remote = _hex_endpoint(peer, family), _hex_endpoint(own, family)
    return f" {local} {remote} " if local and remote else None


def _hex_endpoint(endpoint: Endpoint, family: int) -> str | None:
    address = _plain(endpoint[0])
    if address is None or (address.version == 6 and family == 4):
        return None
    packed = address.packed
    if address.version == 4 and family == 6:
        packed = _MAPPED + packed
    # The kernel prints each 32-bit word as the machine's own number.
    words = [int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{endpoint[1]:04X}"

"""Whose process is at the other end of a loopback TCP connection, by the kernel's socket table.

Linux writes each TCP socket with its addresses, owner and inode to ``/proc/net/tcp`` and ``tcp6``;
the peer's own socket is the line whose addresses are ours the other way round. Elsewhere the owner
cannot be told and None is given, which callers must treat as a stranger.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from pathlib import Path

Endpoint = tuple[str, int]
"""An address and a port, as ASGI gives them."""

FindOwner = Callable[[Endpoint, Endpoint], int | None]
"""Gives the uid that owns the peer's socket, from the peer's endpoint and ours."""

_PROC_NET = Path("/proc/net")
_FAMILIES = {4: "tcp", 6: "tcp6"}

# Only a socket that a process still holds has its owner's uid. Orphans and TIME_WAIT entries show
# uid 0, which would make a server run as root trust anybody who hangs up quickly.
_HELD_STATES = frozenset({"01", "04", "05"})


def find_owner(peer: Endpoint, own: Endpoint, proc_net: Path = _PROC_NET) -> int | None:
    """Give the uid that owns ``peer``'s socket of the connection to ``own``; None if unknown."""
    for family in (4, 6):
        needle = _line_part(peer, own, family)
        if needle is None:
            continue
        owner = _owner_in(proc_net / _FAMILIES[family], needle)
        if owner is not None:
            return owner
    return None


def _owner_in(table: Path, needle: str) -> int | None:
    try:
        text = table.read_text("ascii")
    except OSError:
        return None
    at = text.find(needle)
    if at < 0:
        return None
    fields = text[text.rfind("\n", 0, at) + 1 : text.find("\n", at)].split()
    # sl local remote state queues timer retransmits uid timeout inode …
    state, uid, inode = fields[3], int(fields[7]), int(fields[9])
    return uid if state in _HELD_STATES and inode != 0 else None


def _line_part(peer: Endpoint, own: Endpoint, family: int) -> str | None:
    local, remote = _hex_endpoint(peer, family), _hex_endpoint(own, family)
    return f" {local} {remote} " if local and remote else None


def _hex_endpoint(endpoint: Endpoint, family: int) -> str | None:
    try:
        address = ipaddress.ip_address(endpoint[0].partition("%")[0])
    except ValueError:
        return None
    if address.version == 4 and family == 6:
        address = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    elif isinstance(address, ipaddress.IPv6Address) and family == 4:
        if address.ipv4_mapped is None:
            return None
        address = address.ipv4_mapped
    packed = address.packed
    # The kernel prints each 32-bit word as the machine's own number.
    words = [int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{endpoint[1]:04X}"

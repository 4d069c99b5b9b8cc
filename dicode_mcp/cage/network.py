"""The inside of the network gate: a network in which every address leads to sockets of the server.

The process makes the sockets while it has the right to, and hands them over; it keeps none. What
they are for, and who may connect where, is not known here.
"""

from __future__ import annotations

import _socket
import os
from _struct import calcsize, pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_INET, _INET6, _NETLINK = 2, 10, 16
_NEW_ROUTE = 24
_REQUEST_ACK_CREATE = 0x1 | 0x4 | 0x400
_TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL = 255, 3, 254, 2
_OUT_INTERFACE = 4
_LOOPBACK = 1
"""The number of ``lo`` in a new network namespace."""
_HEADER, _ROUTE, _ATTRIBUTE = "=IHHII", "=BBBBBBBBI", "=HHI"
_BACKLOG = 128
_DNS = 53
MOST_SOCKETS = 200
"""As many as one message can carry, with room."""


def route_message(family: int) -> bytes:
    """Give the request: every address of a family is one of this machine's own."""
    route = pack(_ROUTE, family, 0, 0, 0, _TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0)
    body = route + pack(_ATTRIBUTE, calcsize(_ATTRIBUTE), _OUT_INTERFACE, _LOOPBACK)
    size = calcsize(_HEADER) + len(body)
    return pack(_HEADER, size, _NEW_ROUTE, _REQUEST_ACK_CREATE, 1, 0) + body


def claim_addresses() -> bool:
    """Make every address local; tells whether that holds for IPv6 too. Raises ``OSError``."""
    link = _socket.socket(_NETLINK, _socket.SOCK_RAW, 0)
    try:
        _ask(link, route_message(_INET))
        try:
            _ask(link, route_message(_INET6))
        except OSError:
            return False  # a machine without IPv6
        return True
    finally:
        link.close()


def _ask(link: _socket.socket, message: bytes) -> None:
    link.send(message)
    answer = link.recv(4096)
    code: int = unpack_from("=i", answer, calcsize(_HEADER))[0]
    if code:
        raise OSError(-code, os.strerror(-code), "route")


def open_sockets(
    ports: Sequence[int], spare: int, six: bool
) -> tuple[list[int], list[_socket.socket]]:
    """Make the sockets: one of UDP for names, listeners on ``ports``, then ``spare`` idle ones.

    Gives the ports that could be taken, and the sockets in that order. Each is for both families.
    """
    if 1 + len(ports) + spare > MOST_SOCKETS:
        raise OSError(24, "too many ports", "listen")
    made = [_bound(_socket.SOCK_DGRAM, _DNS, six)]
    for port in ports:
        listener = _bound(_socket.SOCK_STREAM, port, six)
        listener.listen(_BACKLOG)
        made.append(listener)
    made += [_plain(_socket.SOCK_STREAM, six) for _ in range(spare)]
    return list(ports), made


def _plain(kind: int, six: bool) -> _socket.socket:
    made = _socket.socket(_INET6 if six else _INET, kind, 0)
    if six:
        made.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
    return made


def _bound(kind: int, port: int, six: bool) -> _socket.socket:
    made = _plain(kind, six)
    made.bind(("::" if six else "", port))
    return made


def offer(ports: Sequence[int], spare: int, control: int) -> None:
    """Make the network and send its sockets over ``control``, keeping none. Raises ``OSError``."""
    six = claim_addresses()
    listening, made = open_sockets(ports, spare, six)
    text = ", ".join(str(port) for port in listening)
    line = f'{{"net": [{text}], "spare": {spare}, "six": {"true" if six else "false"}}}'
    send(control, line, [each.fileno() for each in made])
    for each in made:
        each.close()


def send(control: int, line: str, fds: Sequence[int]) -> None:
    """Write a line to the server with descriptors for it."""
    # A duplicate: closing it leaves ``control`` as it is.
    way = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, os.dup(control))
    try:
        packed = pack(f"={len(fds)}i", *fds)
        way.sendmsg([line.encode() + b"\n"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
    finally:
        way.close()

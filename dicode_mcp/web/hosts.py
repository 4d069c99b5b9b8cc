"""Which Host and Origin headers are ours: the guard against DNS rebinding and foreign pages.

Pure: header texts in, a verdict out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and, if written, a port. IPv6 addresses are without brackets."""

    host: str
    port: int | None = None


class HostPolicy:
    """The names this server answers to and the origins whose pages may call it.

    ``allowed_hosts`` are ``name`` (any port) or ``name:port``, added to the loopback names.
    ``allowed_origins`` are ``scheme://host[:port]``, compared exactly. An origin is also ours when
    its host is an allowed one and its port is the request's.
    """

    def __init__(
        self, allowed_hosts: Iterable[str] = (), allowed_origins: Iterable[str] = ()
    ) -> None:
        hosts = [parse_authority(host.strip().lower()) for host in allowed_hosts]
        self._hosts = frozenset(host for host in hosts if host is not None)
        self._origins = frozenset(origin.strip().lower().rstrip("/") for origin in allowed_origins)

    def knows_host(self, header: str | None) -> bool:
        """Tell whether a Host header names this server."""
        authority = parse_authority((header or "").lower())
        return authority is not None and self._is_own(authority)

    def knows_origin(self, header: str, host_header: str) -> bool:
        """Tell whether an Origin header names a page of this server (or an allowed one)."""
        origin = header.strip().lower()
        if origin in self._origins:
            return True
        scheme, _, netloc = origin.partition("://")
        default = _DEFAULT_PORTS.get(scheme)
        authority = parse_authority(netloc)
        if default is None or authority is None:
            return False
        host = parse_authority(host_header.lower())
        if host is None or not self._is_own(authority):
            return False
        return (authority.port or default) == (host.port or default)

    def _is_own(self, authority: Authority) -> bool:
        if authority.host in LOOPBACK_NAMES:
            return True
        return authority in self._hosts or Authority(authority.host) in self._hosts


def parse_authority(text: str) -> Authority | None:
    """Read ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``; None when it is none of these."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_v6(host):
            return None
    else:
        host, colon, rest = text.partition(":")
        rest = colon + rest
        if not host or not all(char.isalnum() or char in "-._" for char in host):
            return None
    if not rest:
        return Authority(host)
    digits = rest[1:]
    if (
        rest[0] != ":"
        or not digits.isascii()
        or not digits.isdigit()
        or not 0 < int(digits) < 65536
    ):
        return None
    return Authority(host, int(digits))


def is_loopback(host: str) -> bool:
    """Tell whether a name or address to bind or connect from is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_v6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True

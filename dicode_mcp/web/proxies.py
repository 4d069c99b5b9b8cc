"""Who stands between a caller and this server, and what is believed of what they say.

A proxy or a tunnel on this machine is a process of its user's like any other, and brings the whole
world: a request that shows a sign of one is nobody's own. Only a proxy that the configuration names
is believed about the address and the scheme of whom it speaks for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dicode_mcp.web.hosts import LOOPBACK_NAMES, parse_authority

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_SIGNS = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
        "x-envoy-external-address",
        "true-client-ip",
        "cdn-loop",
        "fastly-client-ip",
        "fly-client-ip",
    }
)
_SIGN_PREFIXES = ("x-forwarded", "cf-", "tailscale-", "ngrok-")

CLIENT = "client_address"
"""Where ``Proxied`` puts the caller's address in a request's state."""


def passed_on(scope: Scope) -> str | None:
    """Say what shows that a request may not come straight from a caller on this machine."""
    headers = Headers(scope=scope)
    authority = parse_authority(headers.get("host", "").lower())
    if authority is None or authority.host not in LOOPBACK_NAMES:
        return "its Host is not localhost or 127.0.0.1"
    for name in headers:
        if name in _SIGNS or name.startswith(_SIGN_PREFIXES):
            return f"it has the header {name}"
    # A plain proxy_pass of nginx shows no other sign, and no client of today speaks this version.
    if scope.get("http_version") == "1.0":
        return "it is in HTTP/1.0, as proxies speak it"
    return None


class Trusted:
    """The proxies that are believed, as addresses and networks."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in proxies]

    def __contains__(self, host: str) -> bool:
        """Tell whether an address is a trusted proxy's."""
        if not self._networks:
            return False
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """Give the caller's address: the last in the chain that no trusted proxy has.

        ``forwarded_for`` are the values of X-Forwarded-For, as they came.
        """
        chain = [part.strip() for value in forwarded_for for part in value.split(",")]
        client = peer
        while client in self and chain:
            said = _address(_without_port(chain.pop()))
            if said is None:
                break
            client = str(said)
        return client


class Proxied:
    """Middleware: puts the caller's address on each request, and the scheme it was made with."""

    def __init__(self, app: ASGIApp, *, trusted: Trusted, public_url: str | None = None) -> None:
        self._app = app
        self._trusted = trusted
        public = urlsplit(public_url or "")
        self._public = (public.scheme, public.netloc.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look and pass on."""
        if scope["type"] == "http":
            peer: tuple[str, int] | None = scope.get("client")
            headers = Headers(scope=scope)
            state = scope.setdefault("state", {})
            state[CLIENT] = None
            if peer:
                forwarded = headers.getlist("x-forwarded-for")
                state[CLIENT] = self._trusted.client(peer[0], forwarded)
            scope["scheme"] = self._scheme(scope, headers, peer)
        await self._app(scope, receive, send)

    def _scheme(self, scope: Scope, headers: Headers, peer: tuple[str, int] | None) -> str:
        said = headers.get("x-forwarded-proto", "").strip().lower()
        if said in ("http", "https") and peer and peer[0] in self._trusted:
            return said
        scheme, host = self._public
        if host and headers.get("host", "").lower() == host:
            return scheme
        return str(scope.get("scheme", "http"))


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, _ = text.partition(":")
    return host if colon and text.count(":") == 1 else text


def _address(text: str) -> IpAddress | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address

"""Addresses that a configuration names: the server's own from outside, and those of proxies. Pure.

Errors are ``ValueError`` sentences.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def check_public_url(text: str) -> str:
    """Give a URL without a slash at its end; it has a host, maybe a port and a path, no more."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL such as https://hooks.example.org") from None
    if not parts.hostname or port == 0 or not text.isascii() or " " in text:
        raise ValueError("is not a URL such as https://hooks.example.org")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a name or a password")
    if parts.query or parts.fragment or text[-1] in "?#":
        raise ValueError("must not hold '?' or '#'")
    return text.rstrip("/")


def check_network(text: str) -> str:
    """Give an IP address or network in its usual form; a whole internet is none to trust."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(
            "is not an IP address such as 10.0.0.7 or a network such as 10.0.0.0/8"
        ) from None
    if network.prefixlen == 0:
        raise ValueError("would trust everybody; name the proxy's own address")
    return str(network) if "/" in text else str(network.network_address)

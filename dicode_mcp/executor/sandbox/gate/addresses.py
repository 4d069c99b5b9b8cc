"""What kind of place an address is: everybody's, a private network's, this machine's own. Pure.

An address that carries another one inside is judged by the one inside.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address


class Kind(Enum):
    """What is said of an address that is not everybody's."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    """Neighbours on one wire; among them the machine's own identity in a cloud."""
    SPECIAL = "special"
    """Groups, tests, translations: nothing that a task has to do with."""


_KINDS_4 = (
    ("0.0.0.0/8", Kind.SPECIAL),
    ("10.0.0.0/8", Kind.PRIVATE),
    ("100.64.0.0/10", Kind.PRIVATE),
    ("127.0.0.0/8", Kind.LOOPBACK),
    ("169.254.0.0/16", Kind.LINK_LOCAL),
    ("172.16.0.0/12", Kind.PRIVATE),
    ("192.0.0.0/24", Kind.SPECIAL),
    ("192.88.99.0/24", Kind.SPECIAL),
    ("192.168.0.0/16", Kind.PRIVATE),
    ("198.18.0.0/15", Kind.SPECIAL),
    ("224.0.0.0/3", Kind.SPECIAL),
)
# Networks for documentation are left out: some gateways answer with them.
_KINDS_6 = (
    ("::1/128", Kind.LOOPBACK),
    ("::/96", Kind.SPECIAL),
    ("64:ff9b:1::/48", Kind.PRIVATE),
    ("100::/64", Kind.SPECIAL),
    ("2001::/32", Kind.SPECIAL),
    ("2001:2::/48", Kind.SPECIAL),
    ("2001:10::/28", Kind.SPECIAL),
    ("2001:20::/28", Kind.SPECIAL),
    ("2002::/16", Kind.SPECIAL),
    ("3ffe::/16", Kind.SPECIAL),
    ("5f00::/16", Kind.SPECIAL),
    ("fc00::/7", Kind.PRIVATE),
    ("fe80::/10", Kind.LINK_LOCAL),
    ("fec0::/10", Kind.PRIVATE),
    ("ff00::/8", Kind.SPECIAL),
)
_TABLE_4 = tuple((IPv4Network(text), kind) for text, kind in _KINDS_4)
_TABLE_6 = tuple((IPv6Network(text), kind) for text, kind in _KINDS_6)
_TRANSLATED = IPv6Network("64:ff9b::/96")
_STATELESS = IPv6Network("::ffff:0:0:0/96")
_LOCAL_ENDINGS = ("local", "internal", "lan", "home.arpa", "localdomain", "test", "intranet")


def parse(text: str) -> Address | None:
    """Read an address in its usual spellings; an IPv4 address inside IPv6 is given as such."""
    try:
        return plain(ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def plain(address: Address) -> Address:
    """Give the IPv4 address of one that is written as IPv6."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def kind(address: Address) -> Kind:
    """Tell what kind of place an address is."""
    address = plain(address)
    if isinstance(address, IPv4Address):
        return next((found for net, found in _TABLE_4 if address in net), Kind.PUBLIC)
    if address in _TRANSLATED or address in _STATELESS:
        return kind(IPv4Address(int(address) & 0xFFFFFFFF))
    return next((found for net, found in _TABLE_6 if address in net), Kind.PUBLIC)


def is_local_name(name: str) -> bool:
    """Tell whether a name is of a private network by its form."""
    return "." not in name or any(name.endswith(f".{ending}") for ending in _LOCAL_ENDINGS)


def is_localhost(name: str) -> bool:
    """Tell whether a name means the machine that asks."""
    return name == "localhost" or name.endswith(".localhost")

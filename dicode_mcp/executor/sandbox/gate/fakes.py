"""The addresses that stand for names inside one run: nobody's elsewhere, and never sent to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from dicode_mcp.executor.sandbox.gate.addresses import Address

NETWORK_4 = IPv4Network("198.18.0.0/15")
NETWORK_6 = IPv6Network("fd64:6963:6f64:6500::/64")
MOST_NAMES = 4096


class Book:
    """Gives each name its two addresses, the same for as long as the run lasts."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int | None:
        """Give a name's number, None when the book is full."""
        found = self._numbers.get(name)
        if found is None and len(self._names) < MOST_NAMES:
            self._names.append(name)
            found = self._numbers[name] = len(self._names)
        return found

    def name(self, address: Address) -> str | None:
        """Give the name that an address stands for; None for one that was never given."""
        network = NETWORK_4 if isinstance(address, IPv4Address) else NETWORK_6
        number = int(address) - int(network.network_address)
        return self._names[number - 1] if 1 <= number <= len(self._names) else None


def is_fake(address: Address) -> bool:
    """Tell whether an address is one of those that stand for names."""
    network = NETWORK_4 if isinstance(address, IPv4Address) else NETWORK_6
    return address in network


def address_4(number: int) -> IPv4Address:
    """Give the IPv4 address of a number."""
    return NETWORK_4.network_address + number


def address_6(number: int) -> IPv6Address:
    """Give the IPv6 address of a number."""
    return NETWORK_6.network_address + number

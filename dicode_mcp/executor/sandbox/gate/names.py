"""Which places the rules of ``permissions.net`` allow. Pure: nothing is looked up here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from dicode_mcp.executor.sandbox.gate.addresses import (
    Address,
    Kind,
    is_local_name,
    is_localhost,
    kind,
    parse,
)
from dicode_mcp.spec.permissions import split_port

LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
COMMON_PORTS = (80, 443)


class _Form(Enum):
    ANY = "any"
    NAME = "name"
    BELOW = "below"
    ADDRESS = "address"
    LOCALHOST = "localhost"


@dataclass(frozen=True, slots=True)
class _Rule:
    form: _Form
    host: str
    port: int | None
    address: Address | None = None

    def has_port(self, port: int | None) -> bool:
        return port is None or self.port is None or self.port == port

    def has_name(self, name: str) -> bool:
        if self.form is _Form.BELOW:
            return name.endswith(self.host)
        return self.form is _Form.NAME and name == self.host

    def has_address(self, address: Address) -> bool:
        if self.form is _Form.LOCALHOST:
            return address in LOOPBACK
        return self.address == address


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one task."""

    _rules: tuple[_Rule, ...]

    @staticmethod
    def read(net: Sequence[str]) -> Rules:
        """Read ``permissions.net`` as its schema lets it through."""
        return Rules(tuple(_read(text) for text in net))

    def __bool__(self) -> bool:
        """Tell whether anything is allowed."""
        return bool(self._rules)

    def name(self, name: str, port: int | None = None) -> bool:
        """Tell whether a name is allowed, at a port or at any that there is."""
        for rule in self._rules:
            if rule.form is _Form.ANY or (rule.has_port(port) and rule.has_name(name)):
                return True
        return False

    def listed(self, address: Address, port: int | None = None) -> bool:
        """Tell whether an address itself is listed."""
        return any(rule.has_port(port) and rule.has_address(address) for rule in self._rules)

    def localhost(self, port: int) -> bool:
        """Tell whether the machine itself is listed by the name ``localhost``."""
        return any(r.form is _Form.LOCALHOST and r.has_port(port) for r in self._rules)

    def address(self, address: Address, port: int) -> bool:
        """Tell whether an address may be connected to that no name led to."""
        if self.listed(address, port):
            return True
        public = kind(address) is Kind.PUBLIC
        return public and any(rule.form is _Form.ANY for rule in self._rules)

    def leads(self, name: str, address: Address, port: int) -> bool:
        """Tell whether an allowed name may lead to an address.

        To a private one it may when its form says that it is private, or when the address is
        listed besides: whoever answers for a public name must not choose among our neighbours.
        """
        found = kind(address)
        if found is Kind.PUBLIC or self.listed(address, port):
            return True
        named = any(
            rule.form is not _Form.ANY and rule.has_port(port) and rule.has_name(name)
            for rule in self._rules
        )
        return found is Kind.PRIVATE and named and is_local_name(name)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that are certain to be wanted."""
        found = [rule.port for rule in self._rules if rule.port is not None]
        return tuple(dict.fromkeys([*found, *(() if self.only_ports else COMMON_PORTS)]))

    @property
    def only_ports(self) -> bool:
        """Whether every rule names its port."""
        return all(rule.port is not None for rule in self._rules)


def _read(text: str) -> _Rule:
    if text == "*":
        return _Rule(_Form.ANY, text, None)
    host, digits = split_port(text)
    port = int(digits) if digits is not None else None
    host = host.lower().removesuffix(".")
    address = parse(host)
    if address is not None:
        return _Rule(_Form.ADDRESS, host, port, address)
    if is_localhost(host):
        return _Rule(_Form.LOCALHOST, host, port)
    if host.startswith("*."):
        return _Rule(_Form.BELOW, host[1:], port)
    return _Rule(_Form.NAME, host, port)

"""The places a secret may come from, asked in the order of ``secrets.providers``.

A link that knows the name answers; one that does not passes the question on. Provider tasks, which
take time to ask, are links of their own kind and are not asked here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dicode_mcp.secrets.vault import Vault
from dicode_mcp.spec.permissions import RESERVED_PREFIX


class Link(Protocol):
    """One place that can be asked at once."""

    @property
    def kind(self) -> str:
        """``local`` or ``env``."""
        ...

    def value_of(self, name: str) -> str | None:
        """Give the value; None when this place has none. Raises SECRETS_LOCKED."""
        ...


@dataclass(frozen=True, slots=True)
class LocalLink:
    """The server's own store."""

    vault: Vault
    kind: str = "local"

    def value_of(self, name: str) -> str | None:
        """Ask the store."""
        return self.vault.value_of(name)


@dataclass(frozen=True, slots=True)
class EnvLink:
    """Variables of the server's environment: ``prefix`` and the secret's name."""

    environ: Mapping[str, str] = field(repr=False)
    prefix: str = ""
    withheld: Collection[str] = ()
    kind: str = "env"

    def value_of(self, name: str) -> str | None:
        """Read the variable; the server's own are never a task's secret. Empty counts as unset."""
        variable = self.prefix + name
        if variable.startswith(RESERVED_PREFIX) or variable in self.withheld:
            return None
        return self.environ.get(variable) or None


class SecretChain:
    """The links in order. ``later`` names provider tasks, which are asked when a run begins."""

    def __init__(self, links: Iterable[Link], later: Iterable[str] = ()) -> None:
        self._links = tuple(links)
        self.later = tuple(later)

    def value_of(self, name: str) -> str | None:
        """Give a secret's value from the first link that has one. Raises SECRETS_LOCKED."""
        for link in self._links:
            value = link.value_of(name)
            if value is not None:
                return value
        return None

    def has(self, name: str) -> str | None:
        """Give the kind of the link that has the secret, None when there is none."""
        return next((link.kind for link in self._links if link.value_of(name) is not None), None)

"""Who sends an ``Authorization`` header: the one place that looks at what is in it.

A key of ours is the keys' to judge, another token the identity provider's. What is wrong is told
in one sentence, whatever is wrong with it; the header's text goes nowhere else.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.keys import PREFIX, Keys
from dicode_mcp.service.leases import Leases
from dicode_mcp.service.principal import Principal

WRONG_AT_ONCE = 100
"""So many wrong proofs in a window are told that they are wrong; further ones to come later."""
WRONG_WINDOW_S = 60.0
MAX_PEERS = 4096
"""Of so many the wrong proofs are counted; the one that was quiet longest is forgotten first."""

_NOBODY = Principal("nobody", "http", verbs=frozenset())


@dataclass(frozen=True, slots=True)
class Proven:
    """Whom a header proves, and until when (epoch ms; None: until it is revoked)."""

    principal: Principal
    ends_ms: int | None = None


class Tokens(Protocol):
    """Judges tokens that are none of our keys."""

    async def verify(self, token: str, surface: str) -> Proven:
        """Give whom a token proves; raises UNAUTHENTICATED, or UNREACHABLE when nobody can tell."""
        ...


class Bearers:
    """Judges ``Authorization`` headers. Belongs to one event loop."""

    def __init__(
        self, keys: Keys, audit: Audit, clock: Clock, tokens: Tokens | None = None
    ) -> None:
        self._keys = keys
        self._audit = audit
        self._tokens = tokens
        self._wrong = WrongProofs(clock)

    @property
    def leases(self) -> Leases:
        """What runs under a proof now."""
        return self._keys.leases

    async def prove(self, headers: Sequence[str], surface: str, peer: str | None) -> Proven:
        """Give whom the ``Authorization`` headers of a request prove.

        Raises UNAUTHENTICATED, and RATE_LIMITED to a peer that was wrong too often. A right proof
        always passes: a key cannot be guessed, so that nobody can shut its holder out by guessing.
        """
        try:
            return await self._judged(_bearer(headers), surface)
        except DicodeError as error:
            if error.code is not Code.UNAUTHENTICATED:
                raise
            where = group_of(peer)
            count, wait_s = self._wrong.note(where)
            if count == 1:
                self._audit.note(_NOBODY, "authenticate", where, error.code.value)
            if count > WRONG_AT_ONCE:
                raise DicodeError(
                    Code.RATE_LIMITED,
                    "too many wrong keys came from this address",
                    hint=f"wait {wait_s} s, then call with a right one",
                    data={"retry_after_s": wait_s},
                    retry=Retry.BACKOFF,
                ) from None
            raise

    async def _judged(self, token: str | None, surface: str) -> Proven:
        if token is None:
            raise _no_bearer()
        if self._tokens is not None and not token.startswith(PREFIX):
            return await self._tokens.verify(token, surface)
        principal = await self._keys.authenticate(token, surface)
        return Proven(principal, self._keys.ends_ms(principal.credential or ""))


class WrongProofs:
    """Counts wrong proofs by where they came from, in bounded memory."""

    def __init__(self, clock: Clock, most_peers: int = MAX_PEERS) -> None:
        self._clock = clock
        self._most_peers = most_peers
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        """Count the peers that are remembered."""
        return len(self._counts)

    def note(self, peer: str) -> tuple[int, int]:
        """Note one; gives how many came in this window, and the seconds to its end."""
        now = self._clock.monotonic()
        count, since = self._counts.pop(peer, (0, now))
        if now - since >= WRONG_WINDOW_S:
            count, since = 0, now
        self._counts[peer] = (count + 1, since)
        if len(self._counts) > self._most_peers:
            self._counts.popitem(last=False)
        return count + 1, max(1, round(since + WRONG_WINDOW_S - now))


def group_of(peer: str | None) -> str:
    """Give whom a peer's wrong proofs are counted for: its address, in IPv6 its network (/64)."""
    try:
        address = ipaddress.ip_address((peer or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _bearer(headers: Sequence[str]) -> str | None:
    """Give the token of the one header; None for several, or another scheme."""
    if len(headers) != 1:
        return None
    scheme, _, token = headers[0].strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token.isascii() and token else None


def _no_bearer() -> DicodeError:
    return DicodeError(
        Code.UNAUTHENTICATED,
        "the Authorization header holds no key: it is to be `Bearer dck_…`, once",
        hint="dicode keys create makes a key; without one leave the header out",
    )

"""Invitations to type a secret into a page of this server, so that no agent ever sees the value.

An invitation is for one secret, once, for ten minutes. Who asked for it and who types are checked
apart: the page's reader has to be somebody who may set the secret himself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.secrets import SecretsService

PAGE = "/secrets/set/"
LASTS_S = 600.0
MOST = 100


@dataclass(slots=True)
class Invitation:
    """One invitation. ``ticket`` is what its page's address holds; ``answer`` is set at the end."""

    name: str
    asker: Principal
    until: float
    ticket: str = field(repr=False)
    answer: dict[str, Any] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Invitations:
    """Gives invitations out and takes what is typed. Belongs to one event loop."""

    def __init__(
        self, secrets: SecretsService, clock: Clock, base_url: Callable[[], str | None]
    ) -> None:
        self._secrets = secrets
        self._clock = clock
        self._base_url = base_url
        self._given: OrderedDict[str, Invitation] = OrderedDict()

    def give(self, principal: Principal, name: str) -> Invitation | None:
        """Invite the caller's user to type a secret; None when no page is served.

        Raises INVALID_ARGUMENT for a bad name and FORBIDDEN.
        """
        self._secrets.require(principal, name)
        if self._base_url() is None:
            return None
        until = self._clock.monotonic() + LASTS_S
        made = Invitation(name, principal, until, secrets.token_urlsafe(32))
        self._given[made.ticket] = made
        while len(self._given) > MOST:
            self._given.popitem(last=False)
        return made

    def url(self, invitation: Invitation) -> str:
        """Give the address of an invitation's page."""
        return f"{(self._base_url() or '').rstrip('/')}{PAGE}{invitation.ticket}"

    def of(self, principal: Principal, ticket: object, name: str) -> Invitation | None:
        """Find an invitation that this very caller was given for a name, used or not."""
        found = self._given.get(ticket) if isinstance(ticket, str) else None
        if found is None or found.name != name or found.asker.actor != principal.actor:
            return None
        return found if found.answer or self._clock.monotonic() < found.until else None

    def open(self, reader: Principal, ticket: str) -> Invitation:
        """Give an invitation to whoever reads its page. Raises NOT_FOUND, FORBIDDEN."""
        found = self._given.get(ticket)
        if found is None or found.answer is not None or self._clock.monotonic() >= found.until:
            raise DicodeError(
                Code.NOT_FOUND,
                "this page was used, or is too old",
                hint="ask your agent for another one, or type: dicode secrets set NAME",
            )
        self._secrets.require(reader, found.name)
        # What was taken from the asker meanwhile is taken from the invitation too.
        self._secrets.require(found.asker, found.name)
        return found

    async def take(self, reader: Principal, ticket: str, value: str) -> str:
        """Set the secret to what was typed, and use the invitation up; gives the secret's name.

        Raises what ``open`` does, INVALID_ARGUMENT and TOO_LARGE; then the invitation holds on.
        """
        found = self.open(reader, ticket)
        del self._given[ticket]
        try:
            answer = await self._secrets.set(reader, found.name, value=value)
        except BaseException:
            self._given[ticket] = found
            raise
        found.answer = answer
        # Kept a while, so that the call that waits, or comes again, learns of it.
        self._given[ticket] = found
        found.done.set()
        return found.name

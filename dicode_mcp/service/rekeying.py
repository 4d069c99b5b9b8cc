"""Changing the key of sealed bodies (inputs, answers, kv) while the server serves.

A new key is stored first, beside the older ones; from then on it seals. What others sealed is
sealed anew a little at a time, and only when none is left are the older keys forgotten. Whatever
ends the server in between, the next start finds all keys and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets as randomness
from collections.abc import Mapping
from typing import Any, Protocol

from dicode_mcp.errors import STORAGE_TROUBLE, DicodeError
from dicode_mcp.secrets.bodies import OLDER_NAME, OWN_NAME, SealedBodies
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal

log = logging.getLogger("dicode.secrets")

_KEY_BYTES = 32
_RETRY_PAUSE_S = 1.0
_SERVER = Principal("server", "server", frozenset())


class OwnValues(Protocol):
    """Where the server keeps sealed values of its own."""

    def own(self, name: str) -> bytes:
        """Give the 32 bytes that were made under ``name`` with the data dir."""
        ...

    def get_own(self, name: str) -> bytes | None:
        """Give a value; None when there is none."""
        ...

    async def put_owns(self, values: Mapping[str, bytes | None]) -> None:
        """Keep values by name, all or none; None forgets one."""
        ...


class Step(Protocol):
    """What one step of the store did."""

    @property
    def place(self) -> tuple[Any, ...] | None:
        """Where the next one begins; None: there is no further row."""
        ...

    @property
    def resealed(self) -> int:
        """How many bodies were sealed anew."""
        ...

    @property
    def unreadable(self) -> int:
        """How many no key opened."""
        ...


class BodyRows(Protocol):
    """Where the bodies are."""

    async def reseal_bodies(self, place: tuple[Any, ...] | None) -> Step:
        """Seal the next bodies with the key in force; None is the beginning."""
        ...


def open_bodies(values: OwnValues) -> SealedBodies:
    """Give what seals bodies, with every key that some may be sealed with."""
    key = values.own(OWN_NAME)
    return SealedBodies(key, _older(values))


def _older(values: OwnValues) -> list[bytes]:
    text = values.get_own(OLDER_NAME) or b""
    return [bytes.fromhex(line) for line in text.decode("ascii").split()]


class BodyKeys:
    """Gives the bodies a new key and follows it through. Belongs to one event loop.

    ``pause_s`` is how long it waits for a store in trouble.
    """

    def __init__(
        self,
        rows: BodyRows,
        values: OwnValues,
        bodies: SealedBodies,
        audit: Audit,
        *,
        pause_s: float = _RETRY_PAUSE_S,
    ) -> None:
        self._pause_s = pause_s
        self._rows = rows
        self._values = values
        self._bodies = bodies
        self._audit = audit
        self._changing = asyncio.Lock()
        self._wanted = asyncio.Event()
        if _older(values):
            self._wanted.set()

    @property
    def at_work(self) -> bool:
        """Whether bodies may be left that an older key sealed."""
        return self._wanted.is_set()

    async def change(self) -> None:
        """Make a new key, which seals from here on; the rest follows. Raises storage errors."""
        async with self._changing:
            key = randomness.token_bytes(_KEY_BYTES)
            older = "\n".join(old.hex() for old in self._unforgotten())
            await self._values.put_owns({OWN_NAME: key.hex().encode(), OLDER_NAME: older.encode()})
            # Not before it is stored: what is sealed with it has to be opened after a crash.
            self._bodies.turn_to(key)
            self._wanted.set()

    def _unforgotten(self) -> list[bytes]:
        """Give the keys that some body may be sealed with."""
        return list(dict.fromkeys([self._bodies.keys[0], *_older(self._values)]))

    async def run(self) -> None:
        """Seal bodies anew whenever there is a new key, until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                await self._follow()
            except DicodeError as error:
                if error.code not in STORAGE_TROUBLE:
                    # The next start goes on with it; nothing is lost meanwhile.
                    log.error("stored inputs could not be sealed anew: %s", error.message)
                    self._wanted.clear()
                    continue
                await asyncio.sleep(self._pause_s)

    async def _follow(self) -> None:
        """Go over all bodies until there is nothing to do, then forget the older keys."""
        total = 0
        while True:
            key = self._bodies.keys[0]
            resealed, unreadable = await self._pass()
            total += resealed
            if resealed:
                continue
            async with self._changing:
                if self._bodies.keys[0] != key:
                    continue
                await self._values.put_owns({OLDER_NAME: None})
                self._wanted.clear()
            break
        if unreadable:
            log.error("%d stored inputs, answers or values cannot be opened by any key", unreadable)
        self._audit.note(
            _SERVER, "bodies_resealed", "", "ok", resealed=total, unreadable=unreadable
        )

    async def _pass(self) -> tuple[int, int]:
        place: tuple[Any, ...] | None = None
        resealed = unreadable = 0
        while True:
            step = await self._rows.reseal_bodies(place)
            resealed += step.resealed
            unreadable += step.unreadable
            place = step.place
            if place is None:
                return resealed, unreadable

"""Changing the master key of a running server.

At every moment the key file opens what is stored: it gets the new key beside the old ones, then
all values are sealed anew in one transaction, and only then the old keys go. Whatever ends the
server in between, the next start works with what it finds, and another rotation ends it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.secrets.keys import KeyRing, MasterKey
from dicode_mcp.secrets.master import new_key, write_keys
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal


class Sealed(Protocol):
    """What is sealed with the key."""

    async def reseal(self, keys: KeyRing) -> int:
        """Seal everything anew with the active key, all or nothing; gives how many values."""
        ...


class Bodies(Protocol):
    """What is sealed with a key that is itself among the sealed values."""

    async def change(self) -> None:
        """Make a new key; what others sealed is sealed anew with it, by and by."""
        ...


class KeyRotation:
    """Rotates. ``given_by`` says what gives the key when it is not the file, else it is None."""

    def __init__(
        self,
        sealed: Sealed,
        bodies: Bodies,
        keys: KeyRing,
        file: Path,
        given_by: str | None,
        audit: Audit,
    ) -> None:
        self._bodies = bodies
        self._sealed = sealed
        self._keys: KeyRing = keys
        self._file = file
        self._given_by = given_by
        self._audit = audit
        self._turn = asyncio.Lock()

    async def rotate(self, principal: Principal) -> dict[str, Any]:
        """Change the master key: ``{key_id, old_key_ids[], resealed}``.

        Inputs, answers and kv get a new key too, and are sealed with it while the server serves.

        Raises FORBIDDEN, NOT_SUPPORTED when the key is not in the file, SECRETS_LOCKED, and the
        store's errors; the old key holds on then.
        """
        principal.require_administration()
        async with self._audit.action(principal, "secrets_rotate", self._keys.active.id):
            async with self._turn:
                if self._given_by is not None:
                    told = await self._reseal(self._given_by)
                else:
                    told = await self._rotate()
                await self._bodies.change()
                return told

    async def _reseal(self, given_by: str) -> dict[str, Any]:
        """Seal everything with the first of the keys that were given from outside."""
        active, *old = self._keys
        if not old:
            raise _not_ours(given_by)
        return _told(active, old, await self._sealed.reseal(self._keys))

    async def _rotate(self) -> dict[str, Any]:
        old = list(self._keys)
        both = KeyRing([await asyncio.to_thread(new_key), *old])
        await self._write(both)
        # From here on the file has the new key too, so it is never lost with what it seals.
        self._keys = both
        resealed = await self._sealed.reseal(both)
        self._keys = KeyRing([both.active])
        try:
            await self._write(self._keys)
        except DicodeError as error:
            self._keys = both
            error.hint = "everything is sealed with the new key, and the old ones are still in the"
            error.hint += " file: mend the data dir, then rotate again"
            raise
        return _told(both.active, old, resealed)

    async def _write(self, keys: KeyRing) -> None:
        await asyncio.to_thread(write_keys, self._file, list(keys))


def _told(active: MasterKey, old: list[MasterKey], resealed: int) -> dict[str, Any]:
    return {
        "key_id": active.id,
        "old_key_ids": [key.id for key in old],
        "resealed": resealed,
    }


def _not_ours(given_by: str) -> DicodeError:
    return DicodeError(
        Code.NOT_SUPPORTED,
        f"the master key comes from {given_by}, which this server cannot change",
        hint="put a new key (32 random bytes in base64) on a line before the old one where the key"
        " comes from, restart the server, call this again, then take the old line out",
        retry=Retry.NEVER,
    )

"""The secrets store: sealed values by name, opened one at a time when somebody is given one.

Values are never listed and never leave in anything but ``value_of``, which the environment of a
run and the check of a webhook ask; no surface does.
"""

from __future__ import annotations

import asyncio
import re
import secrets as randomness
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import SealedSecret
from dicode_mcp.secrets.cipher import Cipher
from dicode_mcp.secrets.keys import KeyRing

MAX_VALUE = 64 * 1024
"""Bytes of UTF-8: what an environment variable can be counted on to hold."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
NAME_RULE = "1 to 128 of A-Z a-z 0-9 _ . - and no dot or dash at the start"
_OWN = "."
_CHECK = ".check"
_OWN_KEY_BYTES = 32
_CHECKED = b"dicode"
OWN_KEYS = ("audit", "payloads")
"""The server's own keys (without their dots): made together when the vault is, and never again."""
_RESERVED = (_CHECK, *(_OWN + name for name in OWN_KEYS))
BeforeFirst = Callable[[Mapping[str, bytes]], Awaitable[None]]


class SealedRows(Protocol):
    """Where sealed values are kept."""

    async def put_secrets(self, secrets: list[SealedSecret]) -> None:
        """Keep sealed secrets, all or none."""
        ...

    async def delete_secret(self, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        ...


class Vault:
    """The secrets of a data dir. Belongs to one event loop; ``open`` makes one."""

    def __init__(
        self,
        rows: SealedRows,
        keys: KeyRing,
        clock: Clock,
        sealed: Mapping[str, SealedSecret],
    ) -> None:
        self._rows = rows
        self._cipher = Cipher(keys)
        self._clock = clock
        self._sealed = dict(sealed)
        self._changing = asyncio.Lock()
        self._listeners: list[Callable[[str], None]] = []

    @classmethod
    async def open(
        cls,
        rows: SealedRows,
        keys: KeyRing,
        clock: Clock,
        sealed: Mapping[str, SealedSecret],
        before_first: BeforeFirst | None = None,
    ) -> Vault:
        """Give the vault after opening every value once.

        When nothing is sealed yet, the server's own keys are made, and ``before_first`` is awaited
        with them before they are stored. Raises SECRETS_LOCKED for a wrong key, and naming the
        first value that does not open, or one of the server's own that is gone.
        """
        vault = cls(rows, keys, clock, sealed)
        if sealed:
            vault._verify(keys)
        else:
            await vault._begin(before_first)
        return vault

    async def _begin(self, before_first: BeforeFirst | None) -> None:
        made = {name: randomness.token_bytes(_OWN_KEY_BYTES) for name in OWN_KEYS}
        if before_first is not None:
            await before_first(made)
        values = {name: key.hex().encode() for name, key in made.items()}
        await self.put_owns({_CHECK.removeprefix(_OWN): _CHECKED, **values})

    def _verify(self, keys: KeyRing) -> None:
        check = self._sealed.get(_CHECK)
        if check is not None and keys.get(check.sealed.split(".")[1]) is None:
            raise DicodeError(
                Code.SECRETS_LOCKED,
                f"the master key is not the one of this data dir: it is {keys.active.id}, and the"
                f" secrets were sealed with {check.sealed.split('.')[1]}",
                hint="give the right key (DICODE_MASTER_KEY, master.key), or bring it back from"
                " your backup; nothing was changed",
                retry=Retry.AFTER,
            )
        for name in self._sealed:
            self._opened(name)
        for name in _RESERVED:
            self._require_own(name)

    def _require_own(self, name: str) -> None:
        # A new key in its place would open nothing of what the old one sealed, one by one.
        if name not in self._sealed:
            raise DicodeError(
                Code.SECRETS_LOCKED,
                f"the server's own sealed value '{name}' was taken out of the data dir; no new one"
                " is made, since it would not open what is there",
                hint="bring back the database of a backup (dicode restore); nothing was changed",
                data={"name": name},
                retry=Retry.AFTER,
            )

    # ── Reading ──

    def names(self) -> list[str]:
        """Give the names, sorted; not the server's own."""
        return sorted(name for name in self._sealed if not name.startswith(_OWN))

    def changed(self, name: str) -> tuple[int, str] | None:
        """Give when a secret was last set (epoch ms) and by whom; None when there is none."""
        found = self._sealed.get(name)
        return None if found is None else (found.updated_at_ms, found.actor)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a secret of this name."""
        return isinstance(name, str) and not name.startswith(_OWN) and name in self._sealed

    def value_of(self, name: str) -> str | None:
        """Open a secret: None when there is none. Raises SECRETS_LOCKED."""
        return self._opened(name).decode() if name in self else None

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the name of each secret that was set or deleted."""
        self._listeners.append(listener)

    def _opened(self, name: str) -> bytes:
        found = self._sealed[name]
        return self._cipher.open(name, found.sealed, found.updated_at_ms)

    # ── Changing ──

    async def set(self, name: str, value: str, actor: str) -> bool:
        """Set a secret; tells whether it is a new one. Raises INVALID_ARGUMENT, TOO_LARGE."""
        check_name(name)
        data = check_value(value)
        async with self._changing:
            fresh = name not in self._sealed
            await self._put(name, data, actor)
        self._tell(name)
        return fresh

    async def delete(self, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        check_name(name)
        async with self._changing:
            gone = await self._rows.delete_secret(name)
            self._sealed.pop(name, None)
        if gone:
            self._tell(name)
        return gone

    def own(self, name: str) -> bytes:
        """Give one of ``OWN_KEYS``, 32 bytes. Raises SECRETS_LOCKED."""
        self._require_own(_OWN + name)
        return bytes.fromhex(self._opened(_OWN + name).decode())

    async def put_own(self, name: str, value: bytes) -> None:
        """Keep a value of the server's own under ``name`` (without its dot), sealed."""
        async with self._changing:
            await self._put(_OWN + name, value, "server")

    async def put_owns(self, values: Mapping[str, bytes | None]) -> None:
        """Keep values of the server's own by name (without dots), all or none; None forgets one."""
        async with self._changing:
            now = self._clock.now_ms()
            fresh = [self._made(_OWN + n, v, now) for n, v in values.items() if v is not None]
            if fresh:
                await self._rows.put_secrets(fresh)
                self._sealed |= {secret.name: secret for secret in fresh}
            for name in (n for n, value in values.items() if value is None):
                await self._rows.delete_secret(_OWN + name)
                self._sealed.pop(_OWN + name, None)

    def _made(self, name: str, value: bytes, now: int) -> SealedSecret:
        return SealedSecret(name, self._cipher.seal(name, value, now), now, "server")

    def get_own(self, name: str) -> bytes | None:
        """Give a value of the server's own; None when there is none. Raises SECRETS_LOCKED."""
        return self._opened(_OWN + name) if _OWN + name in self._sealed else None

    async def reseal(self, keys: KeyRing) -> int:
        """Seal everything anew with the active key of ``keys``; gives how many values.

        ``keys`` must still have the older key: all values change in one transaction, or none.
        """
        async with self._changing:
            cipher = Cipher(keys)
            fresh = [
                SealedSecret(
                    s.name,
                    cipher.seal(s.name, self._opened(s.name), s.updated_at_ms),
                    s.updated_at_ms,
                    s.actor,
                )
                for s in self._sealed.values()
            ]
            await self._rows.put_secrets(fresh)
            self._cipher = cipher
            self._sealed = {secret.name: secret for secret in fresh}
            return len(fresh)

    async def _put(self, name: str, value: bytes, actor: str) -> None:
        now = self._clock.now_ms()
        secret = SealedSecret(name, self._cipher.seal(name, value, now), now, actor)
        await self._rows.put_secrets([secret])
        self._sealed[name] = secret

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)


def check_name(name: str) -> None:
    """Refuse what is no secret's name (INVALID_ARGUMENT)."""
    if not NAME.fullmatch(name):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "this is not a secret's name",
            hint=f"{NAME_RULE}; for example SLACK_TOKEN",
        )


def check_value(value: str) -> bytes:
    """Give a value's bytes; refuses an empty one, one over ``MAX_VALUE`` and NUL characters."""
    if not value:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "the secret's value is empty",
            hint="give a value, or delete the secret",
        )
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "the secret's value has a NUL character or half of a surrogate pair",
            hint="encode binary values, for example in base64, and decode them in the task",
        )
    data = value.encode()
    if len(data) > MAX_VALUE:
        raise DicodeError(
            Code.TOO_LARGE,
            f"the secret's value is {len(data)} bytes; at most {MAX_VALUE} are taken",
            hint="keep large material in a file, and grant the task permissions.fs",
        )
    return data


def missing(name: str, users: Iterable[str] = ()) -> DicodeError:
    """Say that there is no secret of this name, and the command that sets it."""
    named = ", ".join(users)
    return DicodeError(
        Code.SECRET_MISSING,
        f"there is no secret '{name}'" + (f", which {named} needs" if named else ""),
        hint=f"set it: dicode secrets set {name} (the value is read from a prompt or stdin)",
        data={"secret": name},
        retry=Retry.AFTER,
    )

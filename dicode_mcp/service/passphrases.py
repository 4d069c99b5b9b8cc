"""The owner's passphrase: kept as an Argon2id hash alone, compared slowly, one at a time."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from dicode_mcp.errors import Code, DicodeError

MIN_LENGTH = 12
MAX_BYTES = 1024
_NAME = "passphrase"
_MEMORY_KIB, _ROUNDS, _LANES, _SALT, _LENGTH = 64 * 1024, 3, 1, 16, 32


class Kept(Protocol):
    """Where the server keeps sealed values of its own."""

    async def put_own(self, name: str, value: bytes) -> None:
        """Keep a value under ``name``, in place of what was there."""
        ...

    def get_own(self, name: str) -> bytes | None:
        """Give a value; None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Hash:
    """A passphrase's hash, with what it takes to compute it again."""

    salt: bytes
    digest: bytes
    memory_kib: int = _MEMORY_KIB
    rounds: int = _ROUNDS
    lanes: int = _LANES

    def text(self) -> bytes:
        """Write it as it is kept."""
        facts = {
            "form": "argon2id",
            "salt": base64.b64encode(self.salt).decode(),
            "digest": base64.b64encode(self.digest).decode(),
            "memory_kib": self.memory_kib,
            "rounds": self.rounds,
            "lanes": self.lanes,
        }
        return json.dumps(facts).encode()

    def fits(self, given: bytes) -> bool:
        """Tell whether ``given`` is the passphrase. Takes a fifth of a second. Blocks."""
        return hmac.compare_digest(_derive(given, self), self.digest)


class Passphrase:
    """The one passphrase of a server. Belongs to one event loop."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._one_at_a_time = asyncio.Lock()
        # Compared with when none is set, so that this takes as long.
        self._none = Hash(os.urandom(_SALT), os.urandom(_LENGTH))

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._kept.get_own(_NAME) is not None

    async def set(self, given: str) -> None:
        """Set it. Raises INVALID_ARGUMENT for one that is too short or too long."""
        data = _checked(given)
        salt = os.urandom(_SALT)
        async with self._one_at_a_time:
            digest = await asyncio.to_thread(_derive, data, Hash(salt, b""))
        await self._kept.put_own(_NAME, Hash(salt, digest).text())

    async def fits(self, given: str) -> bool:
        """Tell whether it is the passphrase; takes as long where none is set."""
        data = given.encode("utf-8", "replace")[: MAX_BYTES + 1]
        text = self._kept.get_own(_NAME)
        known = self._none if text is None else _read(text)
        async with self._one_at_a_time:
            right = await asyncio.to_thread(known.fits, data)
        # Set anew meanwhile: what was compared is no passphrase any more.
        return right and text is not None and self._kept.get_own(_NAME) == text


def _read(text: bytes) -> Hash:
    facts: dict[str, Any] = json.loads(text)
    return Hash(
        base64.b64decode(facts["salt"]),
        base64.b64decode(facts["digest"]),
        int(facts["memory_kib"]),
        int(facts["rounds"]),
        int(facts["lanes"]),
    )


def _derive(given: bytes, form: Hash) -> bytes:
    try:
        kdf = Argon2id(
            salt=form.salt,
            length=_LENGTH,
            iterations=form.rounds,
            lanes=form.lanes,
            memory_cost=form.memory_kib,
        )
        return kdf.derive(given)
    except UnsupportedAlgorithm:
        raise DicodeError(
            Code.NOT_SUPPORTED,
            "the cryptography library here has no Argon2id, which passphrases need",
            hint="install cryptography from its wheel (it brings OpenSSL 3.2 or newer)",
        ) from None


def _checked(given: str) -> bytes:
    data = given.encode("utf-8", "replace")
    if len(given) < MIN_LENGTH:
        raise _invalid(f"the passphrase is shorter than {MIN_LENGTH} characters")
    if len(data) > MAX_BYTES or any(not letter.isprintable() for letter in given):
        raise _invalid(f"the passphrase is over {MAX_BYTES} bytes, or not all of it can be typed")
    return data


def _invalid(message: str) -> DicodeError:
    return DicodeError(
        Code.INVALID_ARGUMENT, message, hint="take several words: dicode passphrase set"
    )

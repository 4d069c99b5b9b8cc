"""Sealing what runs began with, what people answered, what tasks keep: bodies under one key.

Each body has a key of its own, made from the one key and 16 random bytes, so that no number of
them wears a key out. It is bound to its kind; where it stands in the database it is not. A body
names the key it was sealed with, so that a newer one can take over while older bodies are read.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicode_mcp.errors import Code, DicodeError, Retry

OWN_NAME = "payloads"
"""Under which the vault keeps the key."""
OLDER_NAME = "payloads-older"
"""Under which it keeps those before it, while there may be bodies of theirs."""

_SEALED = b"\x02"
_NAMELESS = b"\x01"
# What bodies began with before they named their key. No JSON begins with either, so a body of
# before there were sealed ones is told apart.
_ID_BYTES = 8
_SALT_BYTES = 16
_NONCE = bytes(12)
# A key seals one body, so the nonce need not change.
_TAG_BYTES = 16


class SealedBodies:
    """Seals with ``key`` (32 bytes), and opens with it and ``older`` ones. Threads share it.

    ``random`` gives the salts.
    """

    def __init__(
        self,
        key: bytes,
        older: Iterable[bytes] = (),
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._random = random
        # Put in place whole, so that a thread sees all of it or nothing.
        self._keys = (key, *older)

    @property
    def prefix(self) -> bytes:
        """What every body begins with that is sealed with the key in force."""
        return _SEALED + _id_of(self._keys[0])

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys, the one that seals first."""
        return self._keys

    def turn_to(self, key: bytes) -> None:
        """Seal with another key from here on."""
        self._keys = (key, *self._keys)

    def seal(self, kind: str, body: bytes) -> bytes:
        """Give a mark, the key's id, the salt, and the ciphertext."""
        key, salt = self._keys[0], self._random(_SALT_BYTES)
        start = _SEALED + _id_of(key)
        return start + salt + _cipher(key, salt).encrypt(_NONCE, body, start + kind.encode())

    def open(self, kind: str, body: bytes) -> bytes:
        """Give a body back; one that was never sealed as it is. Raises SECRETS_LOCKED."""
        if body.startswith(_SEALED):
            start, rest = body[: 1 + _ID_BYTES], body[1 + _ID_BYTES :]
            named = [key for key in self._keys if _id_of(key) == start[1:]]
            return _opened(kind, named, rest, start + kind.encode())
        if body.startswith(_NAMELESS):
            return _opened(kind, self._keys, body[1:], kind.encode())
        return body


def _opened(kind: str, keys: Iterable[bytes], body: bytes, bound: bytes) -> bytes:
    salt, sealed = body[:_SALT_BYTES], body[_SALT_BYTES:]
    for key in keys if len(sealed) >= _TAG_BYTES else ():
        try:
            return _cipher(key, salt).decrypt(_NONCE, sealed, bound)
        except InvalidTag:
            continue
    raise DicodeError(
        Code.SECRETS_LOCKED,
        f"a stored {kind} cannot be opened: it was altered, or sealed with another key",
        hint="bring back the master key and the database of one backup (dicode restore)",
        retry=Retry.AFTER,
    )


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, b"dicode/body/v1" + salt, "sha256"))


def _id_of(key: bytes) -> bytes:
    return hmac.digest(key, b"dicode/body-id/v1", "sha256")[:_ID_BYTES]

"""One value sealed under its name: AES-256-GCM, bound to name, key and time of change.

A sealed text that was moved to another name, cut, or given an older time does not open.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.secrets.keys import KeyRing, MasterKey

VERSION = "v1"
NONCE_BYTES = 12


def _random(size: int) -> bytes:
    return os.urandom(size)


class Cipher:
    """Seals and opens with the keys of a ring. ``random`` gives the nonces."""

    def __init__(self, keys: KeyRing, random: Callable[[int], bytes] = _random) -> None:
        self._keys = keys
        self._random = random

    @property
    def key_id(self) -> str:
        """The id of the key that seals."""
        return self._keys.active.id

    def seal(self, name: str, value: bytes, updated_at_ms: int) -> str:
        """Give ``v1.<key id>.<nonce>.<ciphertext>`` of a value, the last two in base64."""
        key = self._keys.active
        nonce = self._random(NONCE_BYTES)
        bound = _bound(key, name, updated_at_ms)
        sealed = AESGCM(key.derive(name)).encrypt(nonce, value, bound)
        return ".".join((VERSION, key.id, _encode(nonce), _encode(sealed)))

    def open(self, name: str, text: str, updated_at_ms: int) -> bytes:
        """Give the value back. Raises SECRETS_LOCKED naming ``name`` when it cannot."""
        parts = text.split(".")
        if len(parts) != 4 or parts[0] != VERSION:
            raise locked(name, "what is stored for it is not a sealed value of this version")
        key = self._keys.get(parts[1])
        if key is None:
            raise locked(name, f"it was sealed with the key {parts[1]}, which is not here")
        try:
            nonce, sealed = _decode(parts[2]), _decode(parts[3])
            bound = _bound(key, name, updated_at_ms)
            return AESGCM(key.derive(name)).decrypt(nonce, sealed, bound)
        except (InvalidTag, ValueError, binascii.Error):
            reason = "what is stored for it was altered, or belongs to another name"
            raise locked(name, reason) from None


def locked(name: str, why: str) -> DicodeError:
    """Say that a stored secret cannot be opened."""
    return DicodeError(
        Code.SECRETS_LOCKED,
        f"the secret '{name}' cannot be opened: {why}",
        hint="bring back the master key and the database of one backup (dicode restore), or set"
        " the secret again",
        data={"name": name},
        retry=Retry.AFTER,
    )


def _bound(key: MasterKey, name: str, updated_at_ms: int) -> bytes:
    # A list in JSON, so that no two different quadruples are the same bytes.
    return json.dumps([VERSION, key.id, name, updated_at_ms]).encode("ascii")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _decode(text: str) -> bytes:
    data = text.encode("ascii") + b"=" * (-len(text) % 4)
    read = base64.b64decode(data, altchars=b"-_", validate=True)
    if _encode(read) != text:
        raise ValueError("not the only way to write these bytes")
    return read

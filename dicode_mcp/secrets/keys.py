"""Master keys: which one seals, which ones still open, and the key of each name below them.

Knows neither where a key is kept nor what it protects.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_INFO = b"dicode/secrets/v1/"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master key. ``id`` (8 hex digits) tells which it is and nothing about it."""

    secret: bytes = field(repr=False)
    id: str = ""

    def __post_init__(self) -> None:
        """Check the length and name the key; raises ``ValueError``."""
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"a master key is {KEY_BYTES} bytes, this one is {len(self.secret)}")
        named = hashlib.sha256(b"dicode/key-id/v1" + self.derive("\0id")).hexdigest()[:8]
        object.__setattr__(self, "id", named)

    def derive(self, name: str) -> bytes:
        """Give the key of one name (HKDF-SHA256, 32 bytes)."""
        info = _INFO + name.encode("utf-8", "surrogatepass")
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self.secret)

    def text(self) -> str:
        """Write the key as it is kept: 44 characters of base64."""
        return base64.b64encode(self.secret).decode("ascii")


def read_key(text: str) -> MasterKey:
    """Read 32 bytes in base64; raises ``ValueError`` that never shows what was given."""
    try:
        return MasterKey(base64.b64decode(text.strip().encode("ascii"), validate=True))
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError(f"a master key is {KEY_BYTES} bytes in base64 (44 characters)") from None


class KeyRing:
    """The keys there are: the first seals, every one opens what it sealed."""

    def __init__(self, keys: Iterable[MasterKey]) -> None:
        self._keys = tuple(keys)
        if not self._keys:
            raise ValueError("a key ring has at least one key")
        self._by_id = {key.id: key for key in reversed(self._keys)}

    def __iter__(self) -> Iterator[MasterKey]:
        """Give the keys, the active one first."""
        return iter(self._keys)

    @property
    def active(self) -> MasterKey:
        """The key that seals."""
        return self._keys[0]

    def get(self, key_id: str) -> MasterKey | None:
        """Find a key by its id."""
        return self._by_id.get(key_id)

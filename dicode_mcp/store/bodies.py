"""What the values of users and tasks go through on their way to the disk and back.

The store does not know what that is; ``PLAIN`` leaves them as they are.
"""

from __future__ import annotations

from typing import Literal, Protocol

Kind = Literal["payload", "answer", "once", "kv"]
"""Which: what a run began with, an answer, what a run did only once, what a task keeps."""


class Bodies(Protocol):
    """Writes and reads such bodies. Threads share it."""

    def seal(self, kind: Kind, body: bytes) -> bytes:
        """Give what is kept of a body that is not empty."""
        ...

    def open(self, kind: Kind, body: bytes) -> bytes:
        """Read what ``seal`` gave, or a body of before it was used. Raises SECRETS_LOCKED."""
        ...


class PlainBodies:
    """Keeps bodies as they are."""

    def seal(self, kind: Kind, body: bytes) -> bytes:
        """Give the body."""
        return body

    def open(self, kind: Kind, body: bytes) -> bytes:
        """Give the body."""
        return body


PLAIN = PlainBodies()

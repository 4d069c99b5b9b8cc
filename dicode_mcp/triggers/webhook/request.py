"""What a task is told of the request that started it, and what makes two deliveries one. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WITHHELD = frozenset({"authorization", "proxy-authorization", "cookie", "x-dicode-page"})
_IN_SIGNATURES = "signature"
_MAX_ID = 128

IDEMPOTENCY_KEY = "idempotency-key"
DELIVERY_HEADERS = (
    ("key", IDEMPOTENCY_KEY),
    ("standard", "webhook-id"),
    ("standard", "svix-id"),
    ("github", "x-github-delivery"),
    ("gitea", "x-gitea-delivery"),
    ("gitlab", "x-gitlab-event-uuid"),
)
"""What names a delivery, and of which kind the name is; the first that is sent counts."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request without its body. ``path`` is decoded, header names are lower-case."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    client: str | None = None
    """The sender's address."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a sender calls one message, however often it is sent."""

    kind: str
    id: str

    def key(self, body: bytes) -> str:
        """Give the idempotency key: no two kinds can meet, nor a key that a caller made up."""
        known = self.id if len(self.id) <= _MAX_ID and self.id.isascii() else _hash(self.id)
        if self.kind == "gitlab":
            # GitLab gives events that follow from each other the same id.
            known += ":" + hashlib.sha256(body).hexdigest()[:32]
        return f"hook:{self.kind}:{known}"


def delivery(headers: Iterable[tuple[str, str]]) -> Delivery | None:
    """Give what a message calls itself; None when it does not."""
    given: dict[str, str] = {}
    for name, value in headers:
        given.setdefault(name, value.strip())
    for kind, header in DELIVERY_HEADERS:
        if given.get(header):
            return Delivery(kind, given[header])
    return None


def shown(call: Call, query: Mapping[str, Any]) -> dict[str, Any]:
    """Give the ``request`` of a run: what is no proof, no credential and no cookie."""
    named = delivery(call.headers)
    return {
        "method": call.method,
        "path": call.path,
        "query": dict(query),
        "headers": _headers(call.headers),
        "delivery_id": named.id if named else None,
        "client": call.client,
    }


def _headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if name in _WITHHELD or _IN_SIGNATURES in name:
            continue
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _hash(text: str) -> str:
    return "sha256." + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

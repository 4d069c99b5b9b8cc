"""What binds each audit entry to the one before it, so that a change of any is noticed. Pure.

Keyed: whoever can write the database but lacks the master key cannot make a chain that fits, nor a
head that stands for fewer entries than there were.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from dicode_mcp.protocols import AuditEntry

BEGINNING = "0" * 64
LOST = "lost"
"""What a chain goes on from whose head was taken away: no entry's value, so the break stays."""


@dataclass(frozen=True, slots=True)
class Head:
    """What stands for a whole chain: how many entries it has, and the value of the last one."""

    count: int = 0
    chain: str = BEGINNING

    def after(self, count: int, chain: str) -> Head:
        """Give the head of ``count`` entries more, the last of which has the value ``chain``."""
        return Head(self.count + count, chain)


def seal_head(key: bytes, head: Head) -> str:
    """Write a head so that nobody without the key can write another."""
    return json.dumps({"count": head.count, "chain": head.chain, "seal": _head_seal(key, head)})


def open_head(key: bytes, text: str) -> Head | None:
    """Read a head; None when it is not one that was sealed with ``key``."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    facts = cast("Mapping[str, Any]", found)
    count, chain, seal = facts.get("count"), facts.get("chain"), facts.get("seal")
    if type(count) is not int or not isinstance(chain, str) or not isinstance(seal, str):
        return None
    head = Head(count, chain)
    right = hmac.compare_digest(_head_seal(key, head).encode(), seal.encode(errors="replace"))
    return head if right else None


def link(key: bytes, before: str, entry: AuditEntry) -> str:
    """Give the chain value (64 hex digits) of ``entry`` after one whose value is ``before``."""
    fields = [
        before,
        entry.at_ms,
        entry.actor,
        entry.surface,
        entry.action,
        entry.target,
        entry.outcome,
        dict(entry.detail),
    ]
    return _mac(key, fields)


def first_broken(key: bytes, entries: Iterable[AuditEntry], before: str = BEGINNING) -> int | None:
    """Give the id of the first entry (oldest first) that does not follow from the one before."""
    for entry in entries:
        if entry.chain is None or not _equal(entry.chain, link(key, before, entry)):
            return entry.id
        before = entry.chain
    return None


def begins_after_loss(key: bytes, entry: AuditEntry) -> bool:
    """Tell whether ``entry`` is the first after the chain's head was taken away."""
    return entry.chain is not None and _equal(entry.chain, link(key, LOST, entry))


def _head_seal(key: bytes, head: Head) -> str:
    return _mac(key, ["head", head.count, head.chain])


def _mac(key: bytes, fields: list[Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def _equal(stored: str, computed: str) -> bool:
    return hmac.compare_digest(stored.encode(errors="replace"), computed.encode())

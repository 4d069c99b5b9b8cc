"""Use cases on the audit log: read it in pages, and prove that nobody changed it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from dicode_mcp.clock import iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import AuditEntry, AuditQuery, Store
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.audit_chain import (
    BEGINNING,
    Head,
    begins_after_loss,
    first_broken,
    open_head,
)
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.scopes import ADMIN

_PAGE = 1_000
_MAX_ID = 2**63


class AuditTrail:
    """What callers may ask of the audit log; all of it takes the scope ``admin``."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        chain_key: bytes = bytes(32),
        notes: Notes | None = None,
    ) -> None:
        self._notes = notes or NoNotes()
        self._store = store
        self._audit = audit
        self._chain_key = chain_key

    def refused(self, principal: Principal, what: str, outcome: str) -> None:
        """Note a call that ended before any service was asked."""
        self._audit.note(principal, "refused_call", what, outcome)

    async def entries(
        self,
        principal: Principal,
        query: AuditQuery,
        *,
        limit: int,
        cursor: str | None = None,
        export: bool = False,
    ) -> dict[str, Any]:
        """Show entries, newest first: ``{entries: […], next_cursor?}``.

        ``export``: oldest first, each with what its chain value is made of.
        """
        principal.require(ADMIN)
        at = _read_cursor(cursor)
        await self._notes.take()
        await self._audit.settled()
        if export:
            page = await self._store.list_audit(limit=limit, after_id=at or 0, query=query)
        else:
            page = await self._store.list_audit(limit=limit, before_id=at, query=query)
        shown: dict[str, Any] = {"entries": [_view(entry, export) for entry in page.items]}
        if page.next_cursor is not None:
            shown["next_cursor"] = page.next_cursor
        return shown

    async def verify(self, principal: Principal) -> dict[str, Any]:
        """Recompute the chain: ``{intact, checked, entries, since?, until?, problem?}``.

        ``entries`` is the first entry that does not follow from the one before it, if any.
        """
        principal.require(ADMIN)
        walk = _Walk()
        await self._notes.take()
        await self._audit.settled()
        while True:
            items = (await self._store.list_audit(limit=_PAGE, after_id=walk.last_id)).items
            if items:
                # Hashing a page takes longer than other callers should wait.
                broken = await asyncio.to_thread(first_broken, self._chain_key, items, walk.chain)
                walk.take(items)
                if broken is not None:
                    entry = next(e for e in items if e.id == broken)
                    return walk.broken_at(self._chain_key, entry)
                continue
            text = await self._store.audit_head()
            told = walk.compared_with(self._chain_key, text)
            if told is not None:
                return told
            walk.expects_more = True


def verify_all(
    chain_key: bytes, pages: Iterable[tuple[AuditEntry, ...]], head_text: str | None
) -> dict[str, Any]:
    """Recompute a chain that nobody adds to meanwhile; gives what ``verify`` gives. Blocks."""
    walk = _Walk()
    for items in pages:
        broken = first_broken(chain_key, items, walk.chain)
        walk.take(items)
        if broken is not None:
            return walk.broken_at(chain_key, next(e for e in items if e.id == broken))
    walk.expects_more = True
    told = walk.compared_with(chain_key, head_text)
    assert told is not None
    return told


class Notes(Protocol):
    """What others left for the audit log."""

    async def take(self) -> None:
        """Take it over into the log."""
        ...


class NoNotes:
    """Nobody leaves anything."""

    async def take(self) -> None:
        """Do nothing."""


class _Walk:
    """How far a check of the chain is."""

    def __init__(self) -> None:
        self.count = 0
        self.last_id = 0
        self.chain = BEGINNING
        self.expects_more = False
        self._since: str | None = None
        self._until: str | None = None

    def take(self, items: tuple[AuditEntry, ...]) -> None:
        self._since = self._since or iso(items[0].at_ms)
        self._until = iso(items[-1].at_ms)
        self.count += len(items)
        self.last_id, self.chain = items[-1].id, items[-1].chain or ""
        self.expects_more = False

    def compared_with(self, key: bytes, text: str | None) -> dict[str, Any] | None:
        """Give the verdict at the end of all entries; None when some were added meanwhile."""
        if text is None:
            # It is written before the first entry.
            return self._told("the chain's head is gone: entries at the end may be missing")
        return self._compared(open_head(key, text))

    def _compared(self, head: Head | None) -> dict[str, Any] | None:
        if head is None:
            return self._told("the chain's head was changed: entries at the end may be missing")
        if head.count > self.count:
            if not self.expects_more:
                return None
            missing = head.count - self.count
            return self._told(f"{missing} entries are missing at the end")
        if head.count < self.count or head.chain != self.chain:
            return self._told("the chain's head is not that of the last entry")
        return self._told(None)

    def broken_at(self, key: bytes, entry: AuditEntry) -> dict[str, Any]:
        told = self._told(
            "the chain began anew at this entry, since its head had been taken away or changed:"
            " entries before it may be missing"
            if begins_after_loss(key, entry)
            else "from this entry on the log is not what was written: it was changed, or an entry"
            " before it was changed, moved, added or taken out"
        )
        return {**told, "entries": [_view(entry, export=False)]}

    def _told(self, problem: str | None) -> dict[str, Any]:
        told: dict[str, Any] = {"intact": problem is None, "checked": self.count, "entries": []}
        if self._since and self._until:
            told |= {"since": self._since, "until": self._until}
        return told | ({"problem": problem} if problem else {})


def _view(entry: AuditEntry, export: bool) -> dict[str, Any]:
    view: dict[str, Any] = {
        "id": entry.id,
        "at": iso(entry.at_ms),
        "actor": entry.actor,
        "surface": entry.surface,
        "action": entry.action,
        "target": entry.target,
        "outcome": entry.outcome,
    }
    if entry.detail:
        view["detail"] = dict(entry.detail)
    if export:
        view |= {"at_ms": entry.at_ms, "chain": entry.chain}
    return view


def _read_cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20 and int(cursor) < _MAX_ID):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "this is not a cursor of get_audit",
            hint="give next_cursor of the last page as it is, or leave it out",
        )
    return int(cursor)

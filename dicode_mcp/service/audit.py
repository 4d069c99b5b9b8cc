"""The audit log: who did what, on which surface, with what outcome.

Entries are written in order by one owned loop, so that an action does not wait for its own entry.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from dicode_mcp.clock import Clock
from dicode_mcp.errors import STORAGE_TROUBLE, Code, DicodeError
from dicode_mcp.protocols import AuditEntry, Store
from dicode_mcp.service.audit_chain import LOST, Head, link, open_head, seal_head
from dicode_mcp.service.floods import Floods
from dicode_mcp.service.principal import Principal

log = logging.getLogger("dicode.audit")

_RETRY_PAUSE_S = 1.0
MAX_WAITING = 10_000
"""Entries that wait while the store cannot write (a full disk); further ones are dropped."""
BATCH = 200
ACTION_LOST = "audit_lost"
"""The entry that says the chain began anew, after its head had been taken away or changed."""
SETTLE_S = 2.0
_PAGE = 1_000
REFUSED = frozenset({Code.UNAUTHENTICATED.value, Code.FORBIDDEN.value, Code.RATE_LIMITED.value})
"""Outcomes that cost their caller nothing, so that he may bring about any number."""


class Audit:
    """Takes entries at once and stores them soon after, each bound to the one before it.

    ``chain_key`` is what binds them: the server's own secret, or any bytes where nobody checks.
    ``begun``: ``begin_chain`` was called for this store, so a head that is missing was taken away.
    """

    def __init__(
        self, store: Store, clock: Clock, chain_key: bytes = bytes(32), *, begun: bool = False
    ) -> None:
        self._store = store
        self._clock = clock
        self._chain_key = chain_key
        self._begun = begun
        self._head: Head | None = None
        self._entries: asyncio.Queue[AuditEntry | None] = asyncio.Queue()
        self._floods = Floods()
        self._dropped = 0
        self._untold = 0
        self._given = 0
        self._stored = 0
        self._running = False
        self._settled = asyncio.Event()

    @asynccontextmanager
    async def action(
        self, principal: Principal, action: str, target: str, /, **detail: Any
    ) -> AsyncGenerator[None]:
        """Note the block as an action: ``ok``, or the code of the error that ended it."""
        outcome = "cancelled"
        try:
            yield
            outcome = "ok"
        except DicodeError as error:
            outcome = error.code.value
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            self.note(principal, action, target, outcome, **detail)

    def note(
        self, principal: Principal, action: str, target: str, outcome: str, /, **detail: Any
    ) -> None:
        """Take one entry; of refusals, no more than ``Floods`` admits.

        ``detail`` never holds values that could be secrets.
        """
        if outcome in REFUSED:
            admitted = self._floods.admits(principal.actor, self._clock.monotonic())
            if not admitted:
                return
            self._tell_left_out()
        self._take(principal.actor, principal.surface, action, target, outcome, detail)

    def _tell_left_out(self) -> None:
        left_out = self._floods.left_out()
        if left_out:
            self._of_server("refused_calls", "rate_limited", {"not_noted": left_out})

    def _of_server(self, action: str, outcome: str, detail: Mapping[str, Any]) -> None:
        self._take("server", "server", action, "", outcome, detail)

    def _take(
        self,
        actor: str,
        surface: str,
        action: str,
        target: str,
        outcome: str,
        detail: Mapping[str, Any],
    ) -> None:
        if self._entries.qsize() >= MAX_WAITING:
            self._dropped += 1
            self._untold += 1
            log.error("the audit log cannot keep up: %d entries were dropped", self._dropped)
            return
        entry = AuditEntry(
            at_ms=self._clock.now_ms(),
            actor=_storable(actor),
            surface=surface,
            action=action,
            target=_storable(target[:256]),
            outcome=outcome,
            detail=_plain(detail),
        )
        self._given += 1
        self._settled.clear()
        self._entries.put_nowait(entry)

    # ── Storing ──

    async def run(self) -> None:
        """Store entries until ``close``, and what was taken before it."""
        self._running = True
        try:
            await self._store_all()
        finally:
            self._running = False
            self._settled.set()

    async def _store_all(self) -> None:
        await self._begin()
        going = True
        while going:
            first = await self._entries.get()
            batch: list[AuditEntry] = [first] if first is not None else []
            going = first is not None and self._drain(batch)
            await self._keep(batch)
            self._stored += len(batch)
            if self.idle:
                self._settled.set()
            if self._untold and not self._entries.qsize():
                count, self._untold = self._untold, 0
                await self._keep([self._dropped_entry(count)])

    def _drain(self, batch: list[AuditEntry]) -> bool:
        """Add what else waits; tells whether more may come."""
        while len(batch) < BATCH and not self._entries.empty():
            entry = self._entries.get_nowait()
            if entry is None:
                return False
            batch.append(entry)
        return True

    @property
    def idle(self) -> bool:
        """Whether everything taken is stored."""
        return self._stored == self._given

    async def settled(self) -> None:
        """Wait until what was taken so far can be read, but not for ever for a full disk."""
        if self._running and not self.idle:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await self._settled.wait()

    def close(self) -> None:
        """Let ``run`` end once everything taken is stored."""
        self._tell_left_out()
        self._entries.put_nowait(None)

    def _dropped_entry(self, count: int) -> AuditEntry:
        now, detail = self._clock.now_ms(), {"count": count}
        return AuditEntry(now, "server", "server", "audit_dropped", "", "storage_full", detail)

    async def _keep(self, batch: list[AuditEntry]) -> None:
        while batch:
            try:
                return await self._add(batch)
            except DicodeError as error:
                # What was stored of a failed write is not known: the chain is read anew.
                self._head = None
                if error.code not in STORAGE_TROUBLE:
                    log.error("audit entries could not be stored: %s", error.message)
                    return
            await asyncio.sleep(_RETRY_PAUSE_S)

    async def _add(self, batch: list[AuditEntry]) -> None:
        if self._head is None:
            self._head = await self._read_head()
        if self._head.chain == LOST and batch[0].action != ACTION_LOST:
            batch = [self._lost_entry(), *batch]
        before, chained = self._head.chain, list[AuditEntry]()
        for entry in batch:
            before = link(self._chain_key, before, entry)
            chained.append(replace(entry, chain=before))
        head = self._head.after(len(chained), before)
        await self._store.append_audit(chained, seal_head(self._chain_key, head))
        self._head = head

    # ── Where the chain stands ──

    async def _begin(self) -> None:
        """Look at the chain at once, so that what is wrong with it is told at the start."""
        try:
            self._head = await self._read_head()
        except DicodeError as error:
            log.error("the audit log cannot be read yet: %s", error.message)
            return
        if self._head.chain == LOST:
            # At once: until it is stored, nothing but the missing head tells of the loss.
            await self._keep([self._lost_entry()])

    def _lost_entry(self) -> AuditEntry:
        return AuditEntry(self._clock.now_ms(), "server", "server", ACTION_LOST, "", "internal")

    async def _read_head(self) -> Head:
        text = await self._store.audit_head()
        head = open_head(self._chain_key, text) if text is not None else None
        if head is not None:
            await self._compare(head)
            return head
        count = await self._count()
        if text is None and not count and not self._begun:
            return Head()
        log.error(
            "the head of the audit log's chain is gone or was changed: entries may be missing; the"
            " chain begins anew, and dicode audit --verify tells of it from here on"
        )
        return Head(count, LOST)

    async def _compare(self, head: Head) -> None:
        """Say so when entries are missing at the end; the chain goes on from what it was."""
        newest = (await self._store.list_audit(limit=1)).items
        if head.count and (not newest or newest[0].chain != head.chain):
            log.error("entries at the end of the audit log are missing or were changed")

    async def _count(self) -> int:
        count, after = 0, 0
        while page := (await self._store.list_audit(limit=_PAGE, after_id=after)).items:
            count, after = count + len(page), page[-1].id
        return count


async def begin_chain(store: Store, key: bytes) -> None:
    """Write the head of a chain that has no entries yet, before its key is stored.

    Where there are entries, an earlier key was taken away with all others: they stay unproven.
    """
    if not (await store.list_audit(limit=1, after_id=0)).items:
        await store.append_audit([], seal_head(key, Head()))


def _plain(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Give the detail as it comes back from the database, so that its chain value fits there."""
    try:
        return json.loads(json.dumps(dict(detail)))
    except (TypeError, ValueError, RecursionError):
        return {"unreadable": True}


def _storable(text: str) -> str:
    # Half of a surrogate pair is no UTF-8, and would make the whole batch fail.
    return text.encode("utf-8", "replace").decode()

"""The audit log: who did what, on which surface, with what outcome.

Entries are written in order by one owned loop, so that an action does not wait for its own entry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from dicode_mcp.clock import Clock
from dicode_mcp.errors import STORAGE_TROUBLE, DicodeError
from dicode_mcp.protocols import AuditEntry, Store
from dicode_mcp.service.principal import Principal

log = logging.getLogger("dicode.audit")

_RETRY_PAUSE_S = 1.0
MAX_WAITING = 10_000
"""Entries that wait while the store cannot write (a full disk); further ones are dropped."""


class Audit:
    """Takes entries at once and stores them soon after."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._entries: asyncio.Queue[AuditEntry | None] = asyncio.Queue()
        self._dropped = 0

    @asynccontextmanager
    async def action(
        self, principal: Principal, action: str, target: str, **detail: Any
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
        self, principal: Principal, action: str, target: str, outcome: str, **detail: Any
    ) -> None:
        """Take one entry. ``detail`` never holds values that could be secrets."""
        if self._entries.qsize() >= MAX_WAITING:
            self._dropped += 1
            log.error("the audit log cannot keep up: %d entries were dropped", self._dropped)
            return
        self._entries.put_nowait(
            AuditEntry(
                at_ms=self._clock.now_ms(),
                actor=principal.actor,
                surface=principal.surface,
                action=action,
                target=target[:256],
                outcome=outcome,
                detail=detail,
            )
        )

    async def run(self) -> None:
        """Store entries until ``close``, and what was taken before it."""
        while (entry := await self._entries.get()) is not None:
            await self._keep(entry)

    def close(self) -> None:
        """Let ``run`` end once everything taken is stored."""
        self._entries.put_nowait(None)

    async def _keep(self, entry: AuditEntry) -> None:
        while True:
            try:
                return await self._store.add_audit(entry)
            except DicodeError as error:
                if error.code not in STORAGE_TROUBLE:
                    log.error("an audit entry could not be stored: %s", error.message)
                    return
            await asyncio.sleep(_RETRY_PAUSE_S)

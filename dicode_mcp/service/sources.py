"""Use cases on sources: list, sync."""

from __future__ import annotations

from typing import Any, Protocol

from dicode_mcp.registry import Registry, SourceState
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.views import source_view


class Syncer(Protocol):
    """Brings a source to its newest state."""

    async def sync(self, source: str) -> object:
        """Reconcile now; returns when that pass is done."""
        ...


class SourcesService:
    """What callers may do with sources."""

    def __init__(self, *, registry: Registry, syncer: Syncer, audit: Audit) -> None:
        self._registry = registry
        self._syncer = syncer
        self._audit = audit

    async def list(self, principal: Principal) -> dict[str, Any]:
        """List sources: ``{sources: […]}``."""
        principal.require("read")
        return {"sources": [source_view(state) for state in self._registry.source_states()]}

    async def sync(self, principal: Principal, name: str) -> dict[str, Any]:
        """Fetch and reconcile a source now; shows it as it then stands."""
        async with self._audit.action(principal, "sync_source", name):
            principal.require("run")
            self._state(name)
            await self._syncer.sync(name)
        return source_view(self._state(name))

    def _state(self, name: str) -> SourceState:
        state = self._registry.source_state(name)
        if state is None:
            raise self._registry.unknown_source(name)
        return state

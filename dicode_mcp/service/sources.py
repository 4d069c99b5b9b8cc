"""Use cases on sources: list, sync."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from dicode_mcp.conditions import ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.registry import Registry, SourceState
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.pins import Pins
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.views import source_view
from dicode_mcp.service.visible import unknown_source, visible_sources


class Syncer(Protocol):
    """Brings a source to its newest state."""

    async def sync(self, source: str) -> object:
        """Reconcile now; returns when that pass is done."""
        ...


def require_whole_source(principal: Principal, what: str) -> None:
    """Let only those change a source as a whole who may author all of its tasks."""
    principal.require("author")
    if not principal.has_all("author"):
        raise DicodeError(
            Code.FORBIDDEN,
            f"not allowed: {what} changes every task of a source, and the caller may use some",
            hint="connect without --tasks",
        )


class SourcesService:
    """What callers may do with sources."""

    def __init__(
        self, *, registry: Registry, syncer: Syncer, audit: Audit, pins: Pins | None = None
    ) -> None:
        self._registry = registry
        self._syncer = syncer
        self._audit = audit
        self._pins = pins

    async def list(self, principal: Principal) -> dict[str, Any]:
        """List sources: ``{sources: […]}``."""
        principal.require("read")
        seen = visible_sources(self._registry, principal)
        states = [s for s in self._registry.source_states() if seen is None or s.name in seen]
        return {"sources": [self._shown(self._part_of(principal, state)) for state in states]}

    async def sync(
        self,
        principal: Principal,
        name: str,
        *,
        commit: str | None = None,
        unpin: bool = False,
    ) -> dict[str, Any]:
        """Fetch and reconcile a source now; shows it as it then stands.

        ``commit`` makes a git source stay at that commit, ``unpin`` follow its branch again. Both
        are stored. Raises SOURCE_NOT_FOUND, INVALID_ARGUMENT, NOT_SUPPORTED for a local source,
        and what bringing the commit raises; then nothing has changed.
        """
        detail = {"commit": commit[:64]} if commit else {"unpin": True} if unpin else {}
        async with self._audit.action(principal, "sync_source", name, **detail):
            if commit or unpin:
                require_whole_source(principal, "a pin")
            principal.require("run")
            state = self._registry.source_state(name)
            if state is None or not self._may_sync(principal, name):
                raise unknown_source(self._registry, principal, name)
            await self._follow(name, commit, unpin=unpin)
            await self._syncer.sync(name)
        return self._shown(self._part_of(principal, self.state(name)))

    async def _follow(self, name: str, commit: str | None, *, unpin: bool) -> None:
        if commit is not None and unpin:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                "commit and unpin stand side by side",
                hint="give commit to stay there, or unpin to follow the branch again",
            )
        if self._pins is None:
            return
        if commit is not None:
            await self._pins.pin(name, commit)
        elif unpin:
            await self._pins.unpin(name)
        await self._pins.ask(name)

    def _may_sync(self, principal: Principal, name: str) -> bool:
        """Tell whether the caller may start at least one task of a source."""
        if principal.has_all("run"):
            return True
        entries = (*self._registry.entries(), *self._registry.contested())
        return any(e.source == name and principal.allows("run", e.id) for e in entries)

    def _part_of(self, principal: Principal, state: SourceState) -> SourceState:
        """Leave out what is said of tasks that the caller does not see, their number too."""
        if principal.has_all("read"):
            return state
        entries = self._registry.entries()
        return replace(
            state,
            broken=tuple(one for one in state.broken if principal.sees(one[0])),
            off=tuple(one for one in state.off if principal.sees(one[0])),
            conditions=tuple(c for c in state.conditions if c.type is not ConditionType.TASKS),
            problems=(),
            task_count=sum(e.source == state.name and principal.sees(e.id) for e in entries),
        )

    def _shown(self, state: SourceState) -> dict[str, Any]:
        more = self._pins.shown(state.name) if self._pins else {}
        return source_view(state) | more

    def view(self, name: str) -> dict[str, Any]:
        """Show a source; raises SOURCE_NOT_FOUND."""
        return self._shown(self.state(name))

    def state(self, name: str, principal: Principal | None = None) -> SourceState:
        """Give how a source stands; raises SOURCE_NOT_FOUND with the nearest names.

        With ``principal`` it names no source that the caller does not see.
        """
        state = self._registry.source_state(name)
        if state is not None:
            return state
        if principal is not None:
            raise unknown_source(self._registry, principal, name)
        raise self._registry.unknown_source(name)

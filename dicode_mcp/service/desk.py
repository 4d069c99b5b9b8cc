"""What installing, updating and removing entries have in common: finding them, writing them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NoReturn
from zoneinfo import ZoneInfo

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.registry import Registry
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.entry_files import Texts, write_texts
from dicode_mcp.service.entry_homes import Homes, read_only
from dicode_mcp.service.installed import Standing, find, keys_of_installed
from dicode_mcp.service.previews import Previews
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.sharing_views import Review
from dicode_mcp.service.sources import Syncer
from dicode_mcp.spec.taskset.lock import LockFile, Vouched

ATTEMPTS = 3
"""How often an edit is begun again because somebody else wrote meanwhile."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Collaborators of the use cases; ``writing`` is held while files are put in place."""

    homes: Homes
    previews: Previews
    review: Review
    registry: Registry
    syncer: Syncer
    audit: Audit
    clock: Clock
    zone: ZoneInfo
    vouched: Vouched
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write(self, old: Texts, text: str, lock: LockFile, *, lock_first: bool) -> None:
        """Put a set's file and its lock in place. Raises ``Changed``."""
        async with self.writing:
            await asyncio.to_thread(write_texts, old, text, lock, lock_first=lock_first)

    async def found(self, principal: Principal, wanted: str) -> Standing:
        """Give the entry that a key or id means. Raises TASK_NOT_FOUND, FORBIDDEN, CONFLICT."""
        homes = await self.homes.all()
        standing = await asyncio.to_thread(find, homes, wanted)
        if standing is not None and principal.sees(standing.id):
            return standing
        entry = self.registry.resolve(wanted)
        if entry is None or not principal.sees(entry.id):
            unknown = self.registry.unknown_task(wanted, principal.sees)
            # Keys do not tell which tasks they bring, so only who sees all is told of all.
            if principal.has_all("read"):
                keys = await asyncio.to_thread(keys_of_installed, homes)
                unknown.hint = f"installed: {', '.join(keys)}" if keys else "nothing is installed"
            raise unknown
        state = self.registry.source_state(entry.source)
        if state is not None and state.kind == "git" and state.dev is None:
            raise read_only(entry.source)
        _not_an_entry(entry.id, entry.source)

    def tasks_of(self, standing: Standing) -> list[str]:
        """Give the ids of an entry's tasks that its source declares now."""
        claims = self.registry.claims(standing.home.source)
        return sorted(task_id for task_id in claims if standing.covers(task_id))


def _not_an_entry(task_id: str, source: str) -> NoReturn:
    raise DicodeError(
        Code.NOT_SUPPORTED,
        f"task '{task_id}' was not installed: it is no entry of a TaskSet, but a folder of source"
        f" '{source}'",
        hint="edit or remove its files where they are",
    )

"""What a git source follows: asking its remote now, staying at a commit, following again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import GitRef, Revision, SourceOverrides, Store

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Followed(Protocol):
    """A git source."""

    @property
    def configured(self) -> GitRef:
        """What it follows when it is not pinned."""
        ...

    @property
    def pin(self) -> str | None:
        """The commit it stays at."""
        ...

    def stay_at(self, commit: str | None) -> None:
        """Show a commit from now on, None: what is configured."""
        ...

    async def fetch(self, *, now: bool = False) -> Revision:
        """Give the newest good revision; with ``now``, ask the remote first."""
        ...

    async def find(self, commit: str) -> Revision:
        """Bring a commit, without showing it; raises ``DicodeError``."""
        ...


class Decided(Protocol):
    """What was decided for a source while the server runs."""

    @property
    def deciding(self) -> asyncio.Lock:
        """Held while a decision is stored."""
        ...

    @property
    def overrides(self) -> SourceOverrides:
        """All of it."""
        ...

    def decide(self, overrides: SourceOverrides) -> None:
        """Note another decision, which switches nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Pins:
    """The git sources by name, and where decisions about them are kept."""

    sources: Mapping[str, Followed]
    decided: Mapping[str, Decided]
    store: Store

    async def ask(self, name: str) -> None:
        """Ask a git source's remote now. What goes wrong is the source's condition."""
        source = self.sources.get(name)
        if source is None:
            return
        try:
            await source.fetch(now=True)
        except DicodeError:
            # The pass that follows meets the same, and shows it.
            return

    async def pin(self, name: str, commit: str) -> None:
        """Stay at a commit. It is brought first: when it cannot be, nothing changes."""
        source = self._git(name)
        if not _COMMIT.fullmatch(commit):
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                "commit is not the full id of a commit",
                hint="give 40 hex digits, as list_sources and get_run show them in `revision`",
            )
        await source.find(commit)
        await self._decide(name, source, commit)

    async def unpin(self, name: str) -> None:
        """Follow what is configured again."""
        source = self._git(name)
        await self._decide(name, source, None)

    def shown(self, name: str) -> dict[str, Any]:
        """Give what is shown of a source beside its state: what it follows, where it stays."""
        source = self.sources.get(name)
        if source is None:
            return {}
        ref = source.configured
        moves = not (ref.commit or ref.tag)
        view = {"branch": ref.branch if moves else None, "tag": ref.tag, "pinned": source.pin}
        return {key: value for key, value in view.items() if value}

    def _git(self, name: str) -> Followed:
        source = self.sources.get(name)
        if source is not None:
            return source
        raise DicodeError(
            Code.NOT_SUPPORTED,
            f"source '{name}' is local and has no commits",
            hint="leave commit and unpin out to read it again",
        )

    async def _decide(self, name: str, source: Followed, commit: str | None) -> None:
        decided = self.decided[name]
        async with decided.deciding:
            overrides = replace(decided.overrides, pin=commit)
            await self.store.set_source_overrides(name, overrides)
            decided.decide(overrides)
            source.stay_at(commit)

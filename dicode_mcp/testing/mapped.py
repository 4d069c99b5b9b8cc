"""Real checkouts behind a map from public URLs to a test's server: no test goes outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

from dicode_mcp.conditions import Condition
from dicode_mcp.protocols import Checkouts, GitRef, Revision


class MappedCheckouts:
    """Checkouts whose mapped URLs lead elsewhere, wherever that is; others are as they are."""

    def __init__(self, inner: Checkouts) -> None:
        self.urls: dict[str, str] = {}
        self.asked: list[GitRef] = []
        """Every ref that was asked for, as it was."""
        self._inner = inner

    def _at(self, ref: GitRef) -> GitRef:
        if ref.url not in self.urls:
            return ref
        return replace(ref, url=self.urls[ref.url], auth=None, trusted=True)

    async def latest(self, ref: GitRef, *, now: bool = False) -> Revision:
        """Give the newest good revision."""
        self.asked.append(ref)
        return await self._inner.latest(self._at(ref), now=now)

    def current(self, ref: GitRef) -> Revision | None:
        """Give what is on disk already."""
        return self._inner.current(self._at(ref))

    def trouble(self, ref: GitRef) -> Condition | None:
        """Say why a ref is old or missing."""
        return self._inner.trouble(self._at(ref))

    def watch(self, ref: GitRef) -> AsyncIterator[None]:
        """Wake when a ref has another revision."""
        return self._inner.watch(self._at(ref))

    async def push_hint(self, url: str) -> int:
        """Pull a URL."""
        return await self._inner.push_hint(self.urls.get(url, url))

    def keep(self, revisions: Iterable[str]) -> None:
        """Say which commits are in use."""
        self._inner.keep(revisions)

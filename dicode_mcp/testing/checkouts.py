"""A double of the git checkouts: repositories are folders the test names, fetched when it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import GitRef, Revision


@dataclass(frozen=True, slots=True)
class _Version:
    root: Path
    commit: str


class FakeCheckouts:
    """Serves folders as repositories, by URL; ``branch``, ``tag`` or ``commit`` picks a version."""

    def __init__(self) -> None:
        self.asked: list[GitRef] = []
        """Every ref that was fetched, in order."""
        self.looked_up: set[GitRef] = set()
        self._remote: dict[tuple[str, str], _Version] = {}
        self._local: dict[tuple[str, str], _Version] = {}
        self._troubles: dict[str, Condition] = {}
        self._wakes: dict[str, asyncio.Event] = {}

    def put(
        self, url: str, root: Path, commit: str, *, name: str = "main", fetched: bool = True
    ) -> None:
        """Let a URL have a version under a branch, tag or commit; ``fetched``: it is on disk."""
        version = _Version(root, commit)
        for key in ((url, name), (url, commit)):
            self._remote[key] = version
            if fetched:
                self._local[key] = version
        self.wake(url)

    def fail(self, url: str, reason: str = "Unreachable", message: str = "it is away") -> None:
        """Let asking for a URL fail from now on."""
        self._troubles[url] = Condition(ConditionType.SYNCED, False, reason, message)
        self.wake(url)

    def mend(self, url: str) -> None:
        """Let asking for a URL work again."""
        del self._troubles[url]
        self.wake(url)

    def wake(self, url: str) -> None:
        """Tell who watches a URL."""
        self._wakes.pop(url, asyncio.Event()).set()

    async def latest(self, ref: GitRef, *, now: bool = False) -> Revision:
        """Give the newest version, or the last one that was fetched."""
        self.asked.append(ref)
        key = (ref.url, _name(ref))
        if ref.url not in self._troubles and key in self._remote:
            self._local[key] = self._remote[key]
        found = self.current(ref)
        if found is None:
            raise DicodeError(Code.UNREACHABLE, f"{ref.url} cannot be had")
        return found

    def current(self, ref: GitRef) -> Revision | None:
        """Give what was fetched."""
        self.looked_up.add(ref)
        version = self._local.get((ref.url, _name(ref)))
        return Revision(ref.url, version.root, version.commit) if version else None

    def trouble(self, ref: GitRef) -> Condition | None:
        """Give what ``fail`` set."""
        return self._troubles.get(ref.url)

    async def watch(self, ref: GitRef) -> AsyncGenerator[None, None]:
        """Wake with ``wake``, ``put``, ``fail`` and ``mend``; fetches what is new first."""
        while True:
            await self._wakes.setdefault(ref.url, asyncio.Event()).wait()
            if ref.url not in self._troubles and (ref.url, _name(ref)) in self._remote:
                self._local[(ref.url, _name(ref))] = self._remote[(ref.url, _name(ref))]
            yield None

    async def push_hint(self, url: str) -> int:
        """Wake who watches the URL."""
        self.wake(url)
        return 1

    def keep(self, revisions: Iterable[str]) -> None:
        """Keep everything."""


def _name(ref: GitRef) -> str:
    return ref.commit or ref.tag or ref.branch

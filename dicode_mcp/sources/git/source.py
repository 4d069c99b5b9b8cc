"""One git repository as a source: which ref it shows, and what is true of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Literal, Protocol

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.protocols import Checkouts, GitRef, Revision
from dicode_mcp.sources.git.failures import GitError
from dicode_mcp.sources.git.remote import parse


class GitTree(Checkouts, Protocol):
    """Checkouts that also say what they leave out."""

    def skipped(self, ref: GitRef) -> tuple[int, tuple[str, ...]]:
        """Give how many entries the newest checkout leaves out, and the first of them with why."""
        ...


class GitSource:
    """The tasks in ``start`` of a repository, at ``ref`` or at the commit it is pinned to.

    ``unset_secret`` names the variable of its push webhook when that is not set.
    """

    def __init__(
        self,
        name: str,
        ref: GitRef,
        checkouts: GitTree,
        *,
        namespace: str = "",
        start: str = "",
        pin: str | None = None,
        unset_secret: str | None = None,
    ) -> None:
        self._name = name
        self._ref = ref
        self._checkouts = checkouts
        self._namespace = namespace
        self._start = start
        self._pin = pin
        self._unset_secret = unset_secret
        self._moved = asyncio.Event()

    @property
    def name(self) -> str:
        """The source's name."""
        return self._name

    @property
    def kind(self) -> Literal["local", "git"]:
        """Always ``git``."""
        return "git"

    @property
    def location(self) -> str:
        """The URL, without anything secret."""
        try:
            return parse(self._ref.url).shown
        except GitError:
            return "(a URL that is refused)"

    @property
    def namespace(self) -> str:
        """What ids begin with."""
        return self._namespace

    @property
    def configured(self) -> GitRef:
        """The ref without a pin."""
        return self._ref

    @property
    def ref(self) -> GitRef:
        """The ref that is shown."""
        return replace(self._ref, commit=self._pin) if self._pin else self._ref

    @property
    def pin(self) -> str | None:
        """The commit it stays at; None while it follows its ref."""
        return self._pin

    def stay_at(self, commit: str | None) -> None:
        """Show this commit from now on, None: follow the ref again; wakes the listener."""
        if commit == self._pin:
            return
        self._pin = commit
        self._moved.set()
        self._moved = asyncio.Event()

    async def fetch(self, *, now: bool = False) -> Revision:
        """Give the newest good revision; with ``now``, ask the remote first."""
        revision = await self._checkouts.latest(self.ref, now=now)
        return replace(revision, source=self._name, start=self._start)

    async def find(self, commit: str) -> Revision:
        """Bring a commit, without showing it; raises ``DicodeError``."""
        return await self._checkouts.latest(replace(self._ref, commit=commit), now=True)

    async def changes(self) -> AsyncGenerator[None]:
        """Wake for each new revision or trouble, and when the pin has changed."""
        while True:
            moved = self._moved
            async for _ in _until(self._checkouts.watch(self.ref), moved):
                yield None
            yield None

    def conditions(self) -> tuple[Condition, ...]:
        """Say why the revision is old, that it is pinned, and what it leaves out."""
        found = (self._checkouts.trouble(self.ref), self._pinned(), self._left_out(), self._unset())
        return tuple(condition for condition in found if condition is not None)

    def _pinned(self) -> Condition | None:
        if self._pin is None:
            return None
        told = (
            f"stays at commit {self._pin[:12]}; sync_source with unpin: true follows"
            f" {self._ref.tag or self._ref.branch} again"
        )
        return Condition(ConditionType.PINNED, True, "PinnedByUser", told)

    def _left_out(self) -> Condition | None:
        count, first = self._checkouts.skipped(self.ref)
        if not count:
            return None
        shown = ", ".join(first[:5]) + (f" and {count - 5} more" if count > 5 else "")
        told = f"only plain files are taken from git; left out: {shown}"
        return Condition(ConditionType.COMPLETE, False, "EntriesLeftOut", told)

    def _unset(self) -> Condition | None:
        if self._unset_secret is None:
            return None
        told = (
            f"the variable {self._unset_secret} is not set, so pushes are not listened for;"
            " set it where the server starts, then restart the server"
        )
        return Condition(ConditionType.PUSH, False, "SecretMissing", told)


async def _until(wakes: AsyncIterator[None], end: asyncio.Event) -> AsyncGenerator[None]:
    """Give wakes until ``end`` is set; then what the iteration holds is let go of."""
    ended = asyncio.ensure_future(end.wait())
    following: asyncio.Future[None] | None = None
    try:
        while True:
            following = asyncio.ensure_future(_next(wakes))
            await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return
            following.result()
            yield
    finally:
        ended.cancel()
        if following is not None:
            following.cancel()
            await asyncio.wait({following})
        if isinstance(wakes, AsyncGenerator):
            await wakes.aclose()


async def _next(wakes: AsyncIterator[None]) -> None:
    await anext(wakes)

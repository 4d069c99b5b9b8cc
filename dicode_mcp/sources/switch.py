"""A source that can show another place than its own while the server runs (dev mode).

It knows neither why nor who asked: it is told which source stands in, and wakes its listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dicode_mcp.conditions import Condition
from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Revision, Source, SourceOverrides
from dicode_mcp.sources.watch import Batch


class SwitchableSource:
    """The source as configured, or its stand-in. What it is called never changes."""

    def __init__(
        self,
        configured: Source,
        overrides: SourceOverrides | None = None,
        stand_in: Source | None = None,
    ) -> None:
        self._configured = configured
        self._overrides = overrides or SourceOverrides()
        self._stand_in = stand_in
        self._switched = asyncio.Event()
        self.deciding = asyncio.Lock()
        """Held while a decision is stored: it is made of the one before."""

    @property
    def configured(self) -> Source:
        """The source without dev mode."""
        return self._configured

    @property
    def overrides(self) -> SourceOverrides:
        """What was decided for the source."""
        return self._overrides

    @property
    def folder(self) -> Path | None:
        """The folder that dev mode shows; None when it shows none."""
        return None if self._stand_in is None else Path(self._stand_in.location)

    @property
    def name(self) -> str:
        """The source's name."""
        return self._configured.name

    @property
    def kind(self) -> Literal["local", "git"]:
        """What the configured source is."""
        return self._configured.kind

    @property
    def location(self) -> str:
        """Where the configured source is."""
        return self._configured.location

    @property
    def namespace(self) -> str:
        """What ids begin with, whatever stands in."""
        return self._configured.namespace

    def switch(self, overrides: SourceOverrides, stand_in: Source | None) -> None:
        """Show ``stand_in`` from now on (None: the source itself), and wake the listener."""
        self._overrides = overrides
        self._stand_in = stand_in
        self._switched.set()
        self._switched = asyncio.Event()

    def decide(self, overrides: SourceOverrides) -> None:
        """Note another decision, which shows the same place as before."""
        self._overrides = overrides

    async def fetch(self) -> Revision:
        """Give the newest revision of what is shown; raises ``DicodeError``."""
        if self._stand_in is None:
            return await self._configured.fetch()
        try:
            revision = await self._stand_in.fetch()
        except DicodeError as error:
            end = f"or end dev mode: dicode source dev {self.name} --disable"
            hint = f"{error.hint}, {end}" if error.hint else end
            raise DicodeError(error.code, error.message, hint=hint, retry=error.retry) from error
        return replace(revision, source=self.name)

    async def changes(self) -> AsyncGenerator[Batch, None]:
        """Give what changed in what is shown; after a switch, first that anything may have."""
        while True:
            switched = self._switched
            shown = self._stand_in or self._configured
            async for batch in _until(shown.changes(), switched):
                yield batch
            if not switched.is_set():
                return
            yield None

    def conditions(self) -> tuple[Condition, ...]:
        """Give what is true of what is shown."""
        return tuple((self._stand_in or self._configured).conditions())


async def _until(batches: AsyncIterator[Batch], end: asyncio.Event) -> AsyncGenerator[Batch, None]:
    """Give batches until ``end`` is set; what the iteration holds is let go of then."""
    ended = asyncio.ensure_future(end.wait())
    following: asyncio.Task[Batch] | None = None
    try:
        while True:
            following = asyncio.ensure_future(_next(batches))
            await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        ended.cancel()
        if following is not None:
            following.cancel()
            await asyncio.wait({following})
            if not following.cancelled():
                following.exception()
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()


async def _next(batches: AsyncIterator[Batch]) -> Batch:
    return await anext(batches)

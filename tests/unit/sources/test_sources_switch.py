"""A source whose place is switched while somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

import pytest

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import DevMode, Revision, SourceOverrides
from dicode_mcp.sources.switch import SwitchableSource

DEADLINE_S = 5.0
Batch = frozenset[Path] | None


class Place:
    """A source whose changes the test makes."""

    def __init__(self, name: str, kind: Literal["local", "git"] = "local") -> None:
        self.name = name
        self.kind: Literal["local", "git"] = kind
        self.location = f"/places/{name}"
        self.namespace = f"ns-{name}"
        self.failure: DicodeError | None = None
        self.listeners = 0
        self.queue: asyncio.Queue[Batch] = asyncio.Queue()

    async def fetch(self) -> Revision:
        if self.failure:
            raise self.failure
        return Revision(self.name, Path(self.location))

    async def changes(self) -> AsyncGenerator[Batch, None]:
        self.listeners += 1
        try:
            yield None
            while True:
                yield await self.queue.get()
        finally:
            self.listeners -= 1

    def conditions(self) -> tuple[Condition, ...]:
        return (Condition(ConditionType.WATCHED, False, self.name),)


async def test_without_a_stand_in_it_is_the_configured_source() -> None:
    own = Place("own", "git")
    source = SwitchableSource(own)
    assert (source.name, source.kind, source.location) == ("own", "git", "/places/own")
    assert source.namespace == "ns-own"
    assert source.folder is None
    assert await source.fetch() == Revision("own", Path("/places/own"))
    assert source.conditions()[0].reason == "own"


async def test_a_stand_in_is_fetched_under_the_configured_name() -> None:
    own, other = Place("own", "git"), Place("other")
    dev = SourceOverrides(DevMode(local_path="/places/other"))
    source = SwitchableSource(own, dev, other)
    assert await source.fetch() == Revision("own", Path("/places/other"))
    assert (source.name, source.kind, source.location) == ("own", "git", "/places/own")
    assert source.namespace == "ns-own"
    assert source.folder == Path("/places/other")
    assert source.conditions()[0].reason == "other"
    source.switch(SourceOverrides(), None)
    assert await source.fetch() == Revision("own", Path("/places/own"))


async def test_a_listener_hears_of_a_switch_and_then_of_the_new_place_alone() -> None:
    own, other = Place("own"), Place("other")
    source = SwitchableSource(own)
    heard = source.changes()
    async with asyncio.timeout(DEADLINE_S):
        assert await anext(heard) is None
        own.queue.put_nowait(frozenset({Path("/a")}))
        assert await anext(heard) == {Path("/a")}
        waiting = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        source.switch(SourceOverrides(DevMode("/places/other")), other)
        assert await waiting is None
        assert own.listeners == 0
        assert await anext(heard) is None
        own.queue.put_nowait(frozenset({Path("/old")}))
        other.queue.put_nowait(frozenset({Path("/new")}))
        assert await anext(heard) == {Path("/new")}
        source.switch(SourceOverrides(), None)
        assert await anext(heard) is None
        assert (own.listeners, other.listeners) == (0, 0)
        await heard.aclose()


async def test_a_listener_that_leaves_lets_go_of_what_is_watched() -> None:
    own = Place("own")
    heard = SwitchableSource(own).changes()
    async with asyncio.timeout(DEADLINE_S):
        await anext(heard)
        waiting = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        assert own.listeners == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await heard.aclose()
    assert own.listeners == 0


async def test_a_place_that_cannot_be_fetched_says_how_to_end_dev_mode() -> None:
    own, other = Place("own"), Place("other")
    other.failure = DicodeError(Code.SOURCE_NOT_FOUND, "it is gone", hint="bring it back")
    source = SwitchableSource(own, SourceOverrides(DevMode("/places/other")), other)
    with pytest.raises(DicodeError) as caught:
        await source.fetch()
    assert caught.value.code is Code.SOURCE_NOT_FOUND
    assert caught.value.hint == "bring it back, or end dev mode: dicode source dev own --disable"

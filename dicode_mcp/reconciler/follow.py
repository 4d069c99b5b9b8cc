"""What a source depends on beyond its own folder: repositories and folders, each watched.

It only wakes; what changed is for a look to find out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Checkouts, GitRef
from dicode_mcp.sources.watch import Batch, Watch, open_folder

MOST_FOLDERS = 16
"""Above this many, folders beside each other are watched through the one around them."""
OpenWatch = Callable[[Path, bool], AsyncIterator[Batch]]
"""Watches a folder, with all below it or (False) alone."""
Wake = Callable[[Batch], None]


def open_watch(folder: Path, deep: bool) -> AsyncIterator[Batch]:
    """Watch a folder of this machine."""
    return Watch(folder, None if deep else open_folder).batches()


class Followers:
    """The watches of one source, in the caller's task group."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        checkouts: Checkouts | None,
        open_watch: OpenWatch,
        *,
        repository: Callable[[], None],
        folder: Wake,
        failed: Callable[[], None],
        pause: float,
    ) -> None:
        self._group = group
        self._checkouts = checkouts
        self._open_watch = open_watch
        self._repository = repository
        self._folder = folder
        self._failed = failed
        self._pause = pause
        self._tasks: dict[GitRef | tuple[Path, bool], asyncio.Task[None]] = {}

    def follow(self, refs: Iterable[GitRef], folders: Iterable[tuple[Path, bool]]) -> None:
        """Watch exactly these from now on; a folder with whether what is below it counts."""
        wanted: set[GitRef | tuple[Path, bool]] = {*folders}
        if self._checkouts is not None:
            wanted |= set(refs)
        for key in [key for key in self._tasks if key not in wanted]:
            self._tasks.pop(key).cancel()
        for key in wanted - set(self._tasks):
            work = self._follow_ref(key) if isinstance(key, GitRef) else self._follow_folder(*key)
            self._tasks[key] = self._group.create_task(work)

    async def _follow_ref(self, ref: GitRef) -> None:
        assert self._checkouts is not None
        while True:
            try:
                if self._checkouts.current(ref) is None:
                    # why it failed is the checkouts' to say, when the look asks
                    with suppress(DicodeError):
                        await self._checkouts.latest(ref)
                    self._repository()
                async for _ in self._checkouts.watch(ref):
                    self._repository()
            except Exception:
                self._failed()
            await asyncio.sleep(self._pause)

    async def _follow_folder(self, folder: Path, deep: bool) -> None:
        while True:
            try:
                async for batch in self._open_watch(folder, deep):
                    self._folder(batch)
            except Exception:
                self._failed()
            await asyncio.sleep(self._pause)


def folders_to_watch(places: Iterable[Path]) -> frozenset[tuple[Path, bool]]:
    """Give the fewest folders that show every change at ``places``, each with whether deeply.

    A place that looks like a file is watched through its folder alone.
    """
    files = {place for place in places if place.suffix in (".yaml", ".yml")}
    deep = _outermost({place for place in places if place not in files})
    while len(deep) > MOST_FOLDERS:
        around = [folder.parent for folder in deep]
        joined = {p if around.count(p) > 1 else f for f, p in zip(deep, around, strict=True)}
        if joined == set(deep):
            break
        deep = _outermost(joined)
    shallow = {file.parent for file in files}
    covered = {f for f in shallow if any(f == d or d in f.parents for d in deep)}
    return frozenset({(f, True) for f in deep} | {(f, False) for f in shallow - covered})


def _outermost(folders: Iterable[Path]) -> list[Path]:
    known = set(folders)
    return sorted(f for f in known if not any(parent in known for parent in f.parents))

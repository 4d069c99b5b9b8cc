"""Where entries can be written: the TaskSets on this machine, and the server's own for the rest.

Knows sources and where they begin, nothing of what an entry says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Source
from dicode_mcp.reconciler.world import set_file
from dicode_mcp.registry import Registry, SourceState
from dicode_mcp.spec.taskset.resolution import namespace_of

FOLDER = "installed"
"""The server's own TaskSet is in this folder of the data dir."""


@dataclass(frozen=True, slots=True)
class Home:
    """A TaskSet that a source begins with. ``name``: what its ids begin with when it says nothing.

    ``own``: it is the server's, made when it is first needed.
    """

    source: str
    file: Path
    name: str
    own: bool = False

    @property
    def shown(self) -> str:
        """The file's name, as people say it."""
        return self.file.name


@dataclass(frozen=True, slots=True)
class OwnSet:
    """The server's own TaskSet: its source's name, and how that begins to be shown."""

    name: str
    file: Path
    begin: Callable[[], None]

    @property
    def home(self) -> Home:
        """The set as a place for entries."""
        return Home(self.name, self.file, self.name, own=True)


def own_name(taken: Sequence[str]) -> str:
    """Name the source of the server's own TaskSet."""
    return FOLDER if FOLDER not in taken else f"dicode-{FOLDER}"


class Homes:
    """The TaskSets that entries can be written to. ``names`` are the configured sources."""

    def __init__(
        self,
        registry: Registry,
        sources: Callable[[str], Source | None],
        own: OwnSet,
    ) -> None:
        self._registry = registry
        self._sources = sources
        self._own = own

    async def pick(self, source: str | None) -> Home:
        """Give the TaskSet for a new entry.

        Raises SOURCE_NOT_FOUND, and FORBIDDEN or NOT_SUPPORTED for a source that has none here.
        """
        if source == self._own.name:
            return self._own.home
        if source is not None:
            return await self._named(source)
        for state in self._registry.source_states():
            # With dev_refs alone a source still shows its own files.
            if state.kind == "local" and (state.dev is None or state.dev.folder is None):
                home = await self._home(state)
                if home is not None:
                    return home
        return self._own.home

    async def all(self) -> list[Home]:
        """Give every TaskSet there is, by source."""
        found: list[Home] = []
        for state in self._registry.source_states():
            home = await self._home(state)
            if home is not None:
                found.append(home)
        return found

    async def prepare(self, home: Home) -> None:
        """Make the folder of the server's own TaskSet. Raises DATA_DIR."""
        if not home.own:
            return
        try:
            await asyncio.to_thread(home.file.parent.mkdir, 0o755, True, True)
        except OSError as error:
            what = f"{home.file.parent} cannot be made: {error.strerror}"
            raise DicodeError(Code.DATA_DIR, what, hint="give the server write access") from error

    def written(self, home: Home) -> None:
        """Begin to show the server's own TaskSet, if it is there now. Looks at the disk."""
        if home.own and home.file.exists():
            self._own.begin()

    async def _named(self, name: str) -> Home:
        state = self._registry.source_state(name)
        if state is None:
            raise self._registry.unknown_source(name)
        home = await self._home(state)
        if home is not None:
            return home
        if state.kind == "git" and state.dev is None:
            raise read_only(name)
        raise DicodeError(
            Code.NOT_SUPPORTED,
            f"source '{name}' is not a TaskSet on this machine, so no entry can be added to it",
            hint="leave source out, or name one that is a TaskSet's file or a folder with"
            " taskset.yaml",
        )

    async def _home(self, state: SourceState) -> Home | None:
        if state.name == self._own.name:
            return self._own.home
        source = self._sources(state.name)
        revision = state.revision
        if source is None or revision is None or revision.commit is not None:
            return None
        start = revision.root / revision.start if revision.start else revision.root
        file = await asyncio.to_thread(set_file, start)
        if file is None:
            return None
        fallback = state.name if state.kind == "git" else revision.root.name
        name = source.namespace or namespace_of(start, revision.root, fallback)
        return Home(state.name, file, name)


def read_only(source: str) -> DicodeError:
    """Say that a source's TaskSet is in git and not to be edited here."""
    return DicodeError(
        Code.FORBIDDEN,
        f"the TaskSet of source '{source}' comes from git and is not in dev mode; it is read-only",
        hint=f'switch_dev_mode with source "{source}", enabled true and a branch, then call again'
        " and commit the edit; or name another source",
    )

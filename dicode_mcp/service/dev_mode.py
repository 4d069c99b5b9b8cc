"""The use case of switching dev mode: what may be asked, and the order in which it takes effect.

What is decided is stored before it is shown, so that a restart gives the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import DevMode, GitRef, Source, SourceOverrides, Store
from dicode_mcp.registry import Registry, ShownDev
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.sources import SourcesService, Syncer, require_whole_source
from dicode_mcp.sources.discovery import MANIFEST, SET_FILES
from dicode_mcp.sources.working.model import Clone
from dicode_mcp.sources.working.names import check_branch

MAX_PATH = 4096


class Switchable(Protocol):
    """A source that can show another place."""

    @property
    def deciding(self) -> asyncio.Lock:
        """Held while a decision is stored."""
        ...

    @property
    def overrides(self) -> SourceOverrides:
        """What was decided for it."""
        ...

    @property
    def folder(self) -> Path | None:
        """The folder dev mode shows."""
        ...

    def switch(self, overrides: SourceOverrides, stand_in: Source | None) -> None:
        """Show another place from now on."""
        ...


class Clones(Protocol):
    """Makes work trees of branches."""

    async def open_branch(self, source: str, ref: GitRef, branch: str) -> Clone:
        """Give a work tree of ``branch``, as new as can be without losing edits."""
        ...


@dataclass(frozen=True, slots=True)
class Switches:
    """The sources that dev mode can switch, and what makes their stand-ins.

    ``refs`` has the git sources. ``show_path`` gives a source that shows a folder or a set's file
    of this machine, ``show_clone`` one that shows a clone of the source's repository.
    """

    sources: Mapping[str, Switchable]
    refs: Mapping[str, GitRef]
    show_path: Callable[[str, Path], Source]
    show_clone: Callable[[str, Path], Source]


class DevModeService:
    """Dev mode of sources."""

    def __init__(
        self,
        *,
        switches: Switches,
        sources: SourcesService,
        clones: Clones,
        syncer: Syncer,
        registry: Registry,
        store: Store,
        audit: Audit,
        data_dir: Path,
        home: Path,
    ) -> None:
        self._switches = switches
        self._sources = sources
        self._clones = clones
        self._syncer = syncer
        self._registry = registry
        self._store = store
        self._audit = audit
        self._data_dir = data_dir
        self._home = home
        self._busy: set[str] = set()
        for name, source in switches.sources.items():
            self._show(name, source)

    async def switch(
        self,
        principal: Principal,
        name: str,
        *,
        enabled: bool,
        local_path: str | None = None,
        branch: str | None = None,
    ) -> dict[str, Any]:
        """Switch dev mode on, off or elsewhere; shows the source once the change is in force.

        Runs that are on go on with what they started with. Raises INVALID_ARGUMENT,
        SOURCE_NOT_FOUND, NOT_FOUND, CONFLICT and what making a clone raises.
        """
        detail = {"enabled": enabled, **_given(local_path=local_path, branch=branch)}
        async with self._audit.action(principal, "switch_dev_mode", name, **detail):
            require_whole_source(principal, "dev mode")
            self._sources.state(name)
            dev = self._wanted(name, enabled, local_path, branch)
            begun = await self._switch(name, dev)
        view = self._sources.view(name)
        if begun and "dev" in view:
            # Told once, so that a mistyped branch is seen before anything is pushed.
            view["dev"] = {**view["dev"], "new_branch": True}
        return view

    def _wanted(
        self, name: str, enabled: bool, local_path: str | None, branch: str | None
    ) -> DevMode | None:
        """Check what was asked for, as far as that takes no reading."""
        if name not in self._switches.sources:
            raise DicodeError(
                Code.NOT_SUPPORTED,
                f"source '{name}' cannot be switched",
                hint="switch a source that dicode.yaml names",
            )
        if not enabled:
            if local_path is not None or branch is not None:
                raise _invalid(
                    "local_path and branch go with enabled: true",
                    "leave them out to end dev mode",
                )
            return None
        if local_path is not None and branch is not None:
            raise _invalid("local_path and branch stand side by side", "give one of the two")
        if branch is not None:
            self._check_branch(name, branch)
        return DevMode(local_path, branch)

    def _check_branch(self, name: str, branch: str) -> None:
        if name not in self._switches.refs:
            raise _invalid(
                f"source '{name}' is local and has no branches",
                "give local_path, or neither to switch dev_refs only",
            )
        try:
            check_branch(branch)
        except ValueError as error:
            raise _invalid(f"the branch's name {error}", 'for example "fix/report"') from None

    async def _switch(self, name: str, dev: DevMode | None) -> bool:
        """Put a decision in force; tells whether it began a branch that the remote lacks."""
        if name in self._busy:
            raise DicodeError(
                Code.CONFLICT,
                f"dev mode of source '{name}' is being switched just now",
                hint="call again in a moment; list_sources shows how it stands",
                retry=Retry.BACKOFF,
            )
        self._busy.add(name)
        try:
            source = self._switches.sources[name]
            dev, stand_in, begun = await self._stand_in(name, dev)
            async with source.deciding:
                overrides = replace(source.overrides, dev=dev)
                await self._store.set_source_overrides(name, overrides)
                source.switch(overrides, stand_in)
            self._show(name, source)
            await self._syncer.sync(name)
            return begun
        finally:
            self._busy.discard(name)

    async def _stand_in(
        self, name: str, dev: DevMode | None
    ) -> tuple[DevMode | None, Source | None, bool]:
        if dev is None or (dev.local_path is None and dev.branch is None):
            return dev, None, False
        if dev.local_path is not None:
            path = await asyncio.to_thread(self._local, dev.local_path)
            return DevMode(local_path=str(path)), self._switches.show_path(name, path), False
        assert dev.branch is not None
        clone = await self._clones.open_branch(name, self._switches.refs[name], dev.branch)
        return dev, self._switches.show_clone(name, Path(clone.folder)), clone.created

    def _local(self, text: str) -> Path:
        """Check a path of this machine. Blocks."""
        path = _absolute(text, self._home)
        if not path.exists():
            raise DicodeError(
                Code.NOT_FOUND,
                "local_path does not exist on the server's machine",
                hint=f"create it, or give the absolute path of a folder or {SET_FILES[0]}",
            )
        if not path.is_dir() and (not _may_be_set(path) or not path.is_file()):
            raise _invalid(
                "local_path is neither a folder nor a TaskSet's file",
                f"give the folder that holds the tasks, or its {SET_FILES[0]}",
            )
        folder = path if path.is_dir() else path.parent
        if not os.access(folder, os.R_OK | os.X_OK):
            raise DicodeError(
                Code.FORBIDDEN,
                "local_path cannot be read by the server",
                hint="give the server's user read access to the folder",
            )
        self._refuse_own(folder.resolve())
        return path

    def _refuse_own(self, folder: Path) -> None:
        own = self._data_dir.resolve()
        if folder.is_relative_to(own):
            raise _invalid(
                "local_path lies in the server's data dir", "give a folder outside of it"
            )
        if own.is_relative_to(folder):
            below = own.relative_to(folder).parts
            if not any(part.startswith(".") for part in below):
                raise _invalid(
                    "local_path holds the server's data dir",
                    "give the folder that holds the tasks alone",
                )

    def _show(self, name: str, source: Switchable) -> None:
        dev = source.overrides.dev
        self._registry.set_dev(name, ShownDev(dev, source.folder) if dev else None)


def _may_be_set(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") and path.name != MANIFEST


def _absolute(text: str, home: Path) -> Path:
    if not text or len(text) > MAX_PATH or not text.isprintable():
        raise _invalid("local_path is not a path", "give the absolute path of a folder")
    path = home / text[2:] if text.startswith("~/") else home if text == "~" else Path(text)
    if not path.is_absolute():
        raise _invalid(
            "local_path is relative", "give an absolute path on the server's machine, or ~/…"
        )
    return Path(os.path.normpath(path))


def _given(**values: str | None) -> dict[str, str]:
    return {name: value[:MAX_PATH] for name, value in values.items() if value is not None}


def _invalid(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)

"""What an entry would bring, before it is in force: its repositories fetched, its tasks read.

The same resolver and loader as everywhere, on a set that holds nothing but the entry. Nothing is
written; what was fetched is on disk, and nobody uses it yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import Checkouts, Revision
from dicode_mcp.reconciler.effective import change_of
from dicode_mcp.reconciler.inline import materialise
from dicode_mcp.reconciler.look import TaskLoader
from dicode_mcp.reconciler.world import DiskWorld, Places, SetFiles, git_ref
from dicode_mcp.service.entry_homes import Home
from dicode_mcp.sources.discovery import discover
from dicode_mcp.spec.giturl import short_url
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.problems import Problem, SpecError
from dicode_mcp.spec.taskset.documents import EntryDoc, TaskSetDoc
from dicode_mcp.spec.taskset.lock import Pin, Vouched, found, held, pin_of, reached
from dicode_mcp.spec.taskset.resolution import Declared, Resolution, Root
from dicode_mcp.spec.taskset.resolve import resolve
from dicode_mcp.spec.taskset.world import Lock, Remote, Tree

_ROUNDS = 20
"""How deep repositories may name repositories; the resolver stops at fewer sets."""
_MOST_REPOSITORIES = 100
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Previewed:
    """One task as it would be; without ``task`` it cannot be read, and ``problems`` say why."""

    declared: Declared
    task: Task | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What an entry brings: its pins in use, each with its commit's facts, and its tasks by id.

    ``problems`` are those of entries that give no task.
    """

    pins: tuple[Pin, ...] = ()
    revisions: dict[Pin, Revision] = field(default_factory=dict[Pin, Revision])
    tasks: tuple[Previewed, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def good(self) -> list[Task]:
        """The tasks that can be read."""
        return [found.task for found in self.tasks if found.task is not None]


class _Asked(Lock):
    """Stands for the lock that is being made: gives the pins there are, and notes who asks."""

    def __init__(self, key: str, vouched: Vouched) -> None:
        self._key = key
        self._vouched = vouched
        self.pins: list[Pin] = []
        self.used: dict[Pin, Remote] = {}
        self.unknown: dict[Remote, None] = {}

    def begin(self) -> None:
        """Forget what the last round asked for."""
        self.used, self.unknown = {}, {}

    def holds(self, entry: str) -> bool:
        """Pin the entry alone."""
        return entry == self._key

    def pinned(self, entry: str, remote: Remote) -> Remote | None:
        """Give a repository at its pin."""
        pin = found(self.pins, remote)
        if pin is None:
            self.unknown[remote] = None
            return None
        self.used[pin] = held(remote, pin, self._vouched)
        return self.used[pin]


class _World(DiskWorld):
    """The world with the lock that is being made."""

    def __init__(self, places: Places, now_ns: int, asked: _Asked) -> None:
        super().__init__(places, SetFiles(), dev=False, now_ns=now_ns)
        self._asked = asked

    def lock(self, file: Path) -> Lock | None:
        """Give it."""
        return self._asked


class Previews:
    """Looks at entries. ``vouched`` says which URLs may lead to private networks."""

    def __init__(
        self,
        checkouts: Checkouts,
        loader: TaskLoader,
        clock: Clock,
        *,
        home: Path,
        host: frozenset[str],
        inline_dir: Path,
        vouched: Vouched,
    ) -> None:
        self._checkouts = checkouts
        self._loader = loader
        self._clock = clock
        self._places = Places(host=host, home=home, checkouts=checkouts)
        self._inline_dir = inline_dir
        self._vouched = vouched

    async def look(
        self, at: Home, document: TaskSetDoc, key: str, known: Iterable[Pin] = ()
    ) -> Preview:
        """Fetch and read what an entry of a set leads to; what is not ``known`` at its newest.

        Raises what fetching the entry's own repository raises. A nested one that cannot be had is
        a problem of the entry that names it.
        """
        asked = _Asked(key, self._vouched)
        asked.pins = list(known)
        entry = next(entry for entry in document.entries if entry.key == key)
        root = _root(at, replace(document, entries=(entry,)))
        revisions: dict[Pin, Revision] = {}
        refused: dict[Remote, Problem] = {}
        resolution = Resolution()
        for _ in range(_ROUNDS):
            asked.begin()
            resolution = await asyncio.to_thread(self._resolve, root, asked)
            news = [remote for remote in asked.unknown if remote not in refused]
            missing = [(pin, r) for pin, r in asked.used.items() if pin not in revisions]
            if not news and not missing:
                break
            if len(revisions) + len(news) + len(missing) > _MOST_REPOSITORIES:
                break
            for remote in news:
                try:
                    commit = await self._newest(remote)
                    asked.pins.append(pin_of(remote, commit))
                except DicodeError as error:
                    if _is_of(entry, remote):
                        raise
                    place = short_url(remote.url)
                    refused[remote] = Problem(place, 0, 0, "", error.message, error.hint or "")
            for pin, remote in missing:
                revisions[pin] = await self._checkouts.latest(git_ref(remote, self._places.home))
        tasks = await asyncio.to_thread(self._read, resolution.tasks, at.source)
        return Preview(
            tuple(asked.used),
            {pin: revision for pin, revision in revisions.items() if pin in asked.used},
            tuple(tasks),
            (*refused.values(), *(p for broken in resolution.broken for p in broken.problems)),
        )

    async def newest(self, remote: Remote) -> Pin:
        """Give what a ref means now, asked of the remote."""
        return pin_of(remote, await self._newest(remote))

    async def _newest(self, remote: Remote) -> str:
        """Ask a repository which commit it has for a ref now."""
        ref = git_ref(reached(remote, self._vouched), self._places.home)
        revision = await self._checkouts.latest(ref, now=True)
        trouble = self._checkouts.trouble(ref)
        if trouble is not None and remote.commit is None:
            raise _stale(trouble.message)
        assert revision.commit is not None, "what is from git has a commit"
        return revision.commit

    def what_is_there(self, preview: Preview) -> list[str]:
        """Name the tasks and sets anywhere in the repositories of an entry. Blocks."""
        names: list[str] = []
        for revision in preview.revisions.values():
            for hit in discover(revision.root).found:
                inner = hit.folder.relative_to(revision.root).as_posix()
                names.append(inner)
        return sorted(set(names))[:_SHOWN]

    def _resolve(self, root: Root, asked: _Asked) -> Resolution:
        return resolve(root, _World(self._places, self._clock.now_ms() * 1_000_000, asked))

    def _read(self, found: Sequence[Declared], source: str) -> list[Previewed]:
        return [self._read_one(declared, source) for declared in found]

    def _read_one(self, declared: Declared, source: str) -> Previewed:
        try:
            folder = declared.folder
            if declared.inline is not None:
                folder = materialise(declared.inline, self._inline_dir)
            task = self._loader.load(
                folder,
                task_id=declared.id,
                source=source,
                source_root=declared.tree.root,
                revision=declared.revision,
                task_set_dir=declared.set_dir,
                change=change_of(declared),
            )
        except SpecError as error:
            return Previewed(declared, None, error.problems)
        except DicodeError as error:
            return Previewed(declared, None, (_fault(error.message, error.hint or ""),))
        except OSError as error:
            return Previewed(declared, None, (_fault(f"cannot be read: {error.strerror}"),))
        return Previewed(declared, task)


def _fault(what: str, hint: str = "") -> Problem:
    return Problem("task.yaml", 0, 0, "", what, hint)


def _root(at: Home, document: TaskSetDoc) -> Root:
    folder = at.file.parent
    return Root(folder, Tree(folder), at.name, at.name, document)


def _is_of(entry: EntryDoc, remote: Remote) -> bool:
    return entry.ref is not None and entry.ref.url == remote.url


def _stale(message: str) -> DicodeError:
    return DicodeError(
        Code.UNREACHABLE,
        f"the newest commit cannot be asked for: {message}",
        hint="call again when the remote answers, or name a commit",
        retry=Retry.BACKOFF,
    )

"""One registry: where its set is, what it offered when it was last read, and when to ask again.

A fetch that takes long goes on while a search answers with what is there. Knows no search.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Checkouts, GitRef, Revision
from dicode_mcp.reconciler.world import DiskWorld, Places, SetFiles
from dicode_mcp.service.offers import Offer
from dicode_mcp.spec import yaml12
from dicode_mcp.spec.files import read_text
from dicode_mcp.spec.giturl import short_url
from dicode_mcp.spec.loader import MANIFEST, parse_document
from dicode_mcp.spec.problems import Problem
from dicode_mcp.spec.taskset.catalogue import Catalogue, Listing, catalogue_of
from dicode_mcp.spec.taskset.documents import Ref
from dicode_mcp.spec.taskset.world import Remote, Tree
from dicode_mcp.spec.yaml12 import Document

_log = logging.getLogger("dicode.registries")

REFRESH_S = 60.0
"""How long what was fetched is new enough to search without asking the remote."""
RETRY_S = 10.0
"""The same after asking failed."""
PATIENCE_S = 20.0
"""How long a search waits for a remote; the fetch then goes on without it."""


@dataclass(frozen=True, slots=True)
class ShelfPlace:
    """Where a registry is: ``path`` in the repository of ``ref``, or absolute on this machine."""

    name: str
    path: str = ""
    ref: GitRef | None = None

    @property
    def shown(self) -> str:
        """What messages call it."""
        return short_url(self.ref.url) if self.ref else self.path


@dataclass(frozen=True, slots=True)
class Reading:
    """What a registry offers now. ``problems`` are those of its entries, then of fetching it."""

    offers: tuple[Offer, ...] = ()
    problems: tuple[Problem, ...] = ()


class Shelf:
    """One registry. Git ones are fetched while ``run`` runs."""

    def __init__(self, place: ShelfPlace, checkouts: Checkouts, home: Path, clock: Clock) -> None:
        self._place = place
        self._checkouts = checkouts
        self._home = home
        self._clock = clock
        self._files = SetFiles()
        self._reading = asyncio.Lock()
        self._known: tuple[Path, Reading] | None = None
        self._wanted = asyncio.Event()
        self._answered = asyncio.Event()
        self._asking_since: float | None = None
        self._asked_at: float | None = None
        self._failure: DicodeError | None = None
        if place.ref is not None:
            # Named from the start, so that what is on disk of it is not taken for forgotten.
            checkouts.current(place.ref)

    @property
    def name(self) -> str:
        """The registry's name."""
        return self._place.name

    async def run(self) -> None:
        """Fetch whenever a search wants it, until cancelled."""
        ref = self._place.ref
        while ref is not None:
            await self._wanted.wait()
            self._wanted.clear()
            self._failure = await self._ask(ref)
            self._asked_at, self._asking_since = self._clock.monotonic(), None
            self._answered.set()

    async def read(self) -> Reading:
        """Give what the registry offers; asks the remote when that was long ago."""
        ref = self._place.ref
        if ref is None:
            async with self._reading:
                return await asyncio.to_thread(self._local)
        late = await self._refresh(ref)
        revision = self._checkouts.current(ref)
        if revision is None:
            return Reading(problems=tuple(self._absence(ref, late)))
        async with self._reading:
            if self._known is None or self._known[0] != revision.root:
                self._known = revision.root, await asyncio.to_thread(self._git, revision)
            _, reading = self._known
        age = tuple(self._age(ref, revision, late))
        return replace(reading, problems=(*reading.problems, *age))

    # Asking the remote

    async def _ask(self, ref: GitRef) -> DicodeError | None:
        """Fetch what is new; gives why nothing at all could be had."""
        try:
            await self._checkouts.latest(ref, now=True)
        except DicodeError as error:
            return error
        except Exception:
            # A bug in one fetch must not end the server, nor the searches after it.
            _log.exception("a registry could not be fetched", extra={"registry": self.name})
            return DicodeError(Code.INTERNAL, "fetching it failed", hint="see the server's log")
        return None

    async def _refresh(self, ref: GitRef) -> bool:
        """Have the remote asked when it is time; tells whether the answer is still to come."""
        if not self._is_due(ref):
            return False
        now = self._clock.monotonic()
        if self._asking_since is None:
            self._asking_since = now
            self._answered.clear()
            self._wanted.set()
        left = PATIENCE_S - (now - self._asking_since)
        return not await self._clock.wait(self._answered, max(0.0, left))

    def _is_due(self, ref: GitRef) -> bool:
        if self._asked_at is None:
            return True
        failed = self._failure is not None or self._checkouts.trouble(ref) is not None
        wait = RETRY_S if failed else REFRESH_S
        return self._clock.monotonic() - self._asked_at >= wait

    def _absence(self, ref: GitRef, late: bool) -> Iterator[Problem]:
        if late or self._failure is None:
            what, hint = "is still being fetched", "search again in a moment"
        else:
            what, hint = f"cannot be had: {self._failure.message}", self._failure.hint or ""
        yield self._problem(what, hint)

    def _age(self, ref: GitRef, revision: Revision, late: bool) -> Iterator[Problem]:
        """Say that what is shown may not be the newest."""
        info = revision.commit_info
        of = f" ({(revision.commit or '')[:10]}, {iso(info.at_ms)})" if info else ""
        shown = f"what is shown is the last good version{of}"
        trouble = self._checkouts.trouble(ref)
        if trouble is not None:
            yield self._problem(f"could not be refreshed: {trouble.message}", shown)
        elif late:
            yield self._problem("does not answer yet", shown)

    def _problem(self, what: str, hint: str = "") -> Problem:
        return Problem(self._place.shown, 0, 0, "", f"registry {self.name!r} {what}", hint)

    # Reading what is on disk; in a thread

    def _local(self) -> Reading:
        path = Path(self._place.path)
        root = path.parent if path.suffix in (".yaml", ".yml") else path
        return self._read(path, Tree(root, shown=self.name))

    def _git(self, revision: Revision) -> Reading:
        ref = self._place.ref
        assert ref is not None
        tree = Tree(
            revision.root,
            revision.commit,
            confined=True,
            own=False,
            remote=Remote(ref.url),
            shown=short_url(ref.url),
        )
        start = self._place.path.strip("/")
        return self._read(revision.root / start if start else revision.root, tree)

    def _read(self, path: Path, tree: Tree) -> Reading:
        now_ns = self._clock.now_ms() * 1_000_000
        # A checkout never changes: what was read of one is in what is known of it.
        files = SetFiles() if tree.confined else self._files
        world = DiskWorld(Places(home=self._home), files, dev=False, now_ns=now_ns)
        catalogue = catalogue_of(Path(os.path.normpath(path)), tree, world, read_manifest)
        return self._offered(catalogue, tree)

    def _offered(self, catalogue: Catalogue, tree: Tree) -> Reading:
        offers = tuple(
            Offer(
                listing.path,
                listing.name,
                listing.description,
                listing.tags,
                repo=short_url(listing.ref.url)
                if listing.ref and listing.ref.url
                else self._place.shown,
                ref=self._ref_to(listing, tree),
                registry=self.name,
                own=listing.ref is None,
            )
            for listing in catalogue.listings
            if listing.on
        )
        return Reading(offers, catalogue.problems)

    def _ref_to(self, listing: Listing, tree: Tree) -> Ref | None:
        """Give the ref that leads to an offer from any set; None when none can."""
        if listing.ref is not None or listing.folder is None:
            return listing.ref
        ref = self._place.ref
        if ref is None:
            return Ref(path=str(listing.folder))
        inner = listing.folder.relative_to(tree.root).as_posix()
        branch = None if ref.tag or ref.commit else ref.branch
        path = None if inner == "." else inner
        return Ref(url=ref.url, path=path, branch=branch, tag=ref.tag, commit=ref.commit)


def read_manifest(folder: Path, shown: str) -> Document:
    """Read a folder's manifest. Raises ``SpecError``."""
    return parse_document(read_text(folder / MANIFEST, shown, max_bytes=yaml12.MAX_BYTES), shown)

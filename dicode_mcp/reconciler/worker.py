"""Reconciles one source: waits for a reason, looks, plans, applies, tells.

A source also depends on the repositories and folders its sets name; these are watched too.

A wake only says that something may have changed. It knows no other source.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Checkouts, GitRef, Revision, Source
from dicode_mcp.reconciler import standing
from dicode_mcp.reconciler.declare import Identity
from dicode_mcp.reconciler.effective import composed
from dicode_mcp.reconciler.follow import Followers, OpenWatch, folders_to_watch, open_watch
from dicode_mcp.reconciler.look import Eyes, Look, Looker
from dicode_mcp.reconciler.plan import Kind, plan, settle
from dicode_mcp.reconciler.reach import reach_of
from dicode_mcp.reconciler.report import Reporter
from dicode_mcp.registry import Registry, SourceState
from dicode_mcp.sources.trouble import MANIFEST
from dicode_mcp.spec.taskset.explain import Explained, explain
from dicode_mcp.spec.taskset.resolution import Declared
from dicode_mcp.spec.yaml12 import Document

T = TypeVar("T")

_MOST_PATHS = 500
"""Above this many changed paths a whole look is cheaper to reason about."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``patience``: how long a broken or missing file is given to be written whole."""

    resync: float = 30.0
    patience: float = 0.1
    first_retry: float = 1.0


class ReadManifest(Protocol):
    """Reads a folder's manifest as it is."""

    def __call__(self, folder: Path) -> Document:
        """Give the document; raises ``DicodeError``."""
        ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What a worker needs beside its source: repositories, watches, and a manifest as written.

    ``withhold`` takes the variables with credentials that the source's sets name.
    """

    read: ReadManifest
    checkouts: Checkouts | None = None
    open_watch: OpenWatch = open_watch
    withhold: Callable[[str, Sequence[str]], None] = lambda source, names: None


class Worker:
    """The loop of one source, and the thread that reads its files."""

    def __init__(
        self,
        source: Source,
        eyes: Eyes,
        registry: Registry,
        clock: Clock,
        timing: Timing,
        log: logging.Logger,
        outside: Outside,
        identity: Identity,
    ) -> None:
        self.source = source
        self.first_pass = asyncio.Event()
        self._registry = registry
        self._clock = clock
        self._timing = timing
        self._outside = outside
        self._looker = Looker(identity, eyes)
        self._followers: Followers | None = None
        self._report = Reporter(source.name, log)
        self._executor = ThreadPoolExecutor(1, f"dicode-source-{source.name}")
        self._wake = asyncio.Event()
        self._whole = True
        self._sets = False
        self._paths: set[Path] = set()
        self._woken_at: float | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._doubts: dict[str, float] = {}
        self._revision: Revision | None = None
        self._failures = 0
        self._searched_at = clock.monotonic()
        self._closed = False

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._followers = Followers(
                    group,
                    self._outside.checkouts,
                    self._outside.open_watch,
                    repository=self.wake,
                    folder=self._changed,
                    failed=self._report.watch_failed,
                    pause=self._timing.first_retry,
                )
                group.create_task(self._watch())
                group.create_task(self._loop())
        finally:
            self._closed = True
            self._answer(self._waiters, _shutting_down())
            self._waiters = []
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def sync(self) -> None:
        """Return when a whole look that began after this call is done."""
        if self._closed:
            raise _shutting_down()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._whole = True
        self._wake.set()
        await waiter

    def wake(self) -> None:
        """Resolve the source's sets again soon, without fetching it."""
        self._sets = True
        self._wake.set()

    async def explain(self, task_id: str, manifest: Mapping[str, Any]) -> tuple[Explained, ...]:
        """Say where each value of a task's effective manifest is written; empty when not known."""
        declared = self._looker.declaration.tasks.get(task_id)
        if declared is None:
            return ()
        return await self._in_thread(lambda: self._explain(declared, manifest))

    def overlay(self, task_id: str) -> Declared | None:
        """Give what is declared for an id."""
        return self._looker.declaration.tasks.get(task_id)

    def _explain(self, declared: Declared, manifest: Mapping[str, Any]) -> tuple[Explained, ...]:
        try:
            document = self._outside.read(declared.folder)
        except DicodeError:
            # what is written now cannot be read; the layers above it still can
            document = Document(MANIFEST, dict(manifest))
        return explain(composed(declared, document), manifest)

    # Reasons to look

    async def _watch(self) -> None:
        while True:
            try:
                async for paths in self.source.changes():
                    self._changed(paths)
            except Exception:
                self._report.watch_failed()
            await asyncio.sleep(self._timing.first_retry)

    def _changed(self, paths: frozenset[Path] | None) -> None:
        if paths is None or len(self._paths) > _MOST_PATHS:
            self._whole = True
        else:
            self._paths |= paths
            if self._woken_at is None:
                self._woken_at = self._clock.monotonic()
            if self._revision is not None:
                self._report.changed(paths, self._revision.root)
        self._wake.set()

    async def _loop(self) -> None:
        while True:
            await self._pass()
            self.first_pass.set()
            await self._reason()

    async def _reason(self) -> None:
        """Wait for a wake, the end of a doubt, or the timer."""
        try:
            async with asyncio.timeout(self._patience_left()):
                await self._wake.wait()
        except TimeoutError:
            pass
        if self._clock.monotonic() >= self._search_due():
            self._whole = True

    def _patience_left(self) -> float:
        due = self._search_due()
        if self._doubts:
            due = min(due, min(self._doubts.values()) + self._timing.patience)
        return max(0.0, due - self._clock.monotonic())

    def _search_due(self) -> float:
        # Counted from the last search: a source that changes all the time is searched too.
        timing = self._timing
        after = timing.resync
        if self._failures:
            after = min(timing.resync, timing.first_retry * 2 ** min(self._failures - 1, 16))
        return self._searched_at + after

    # One pass

    async def _pass(self) -> None:
        waiters, self._waiters = self._waiters, []
        try:
            await self._reconcile(patient=self.first_pass.is_set() and not waiters)
            if waiters:
                await self._refresh()
        except DicodeError as error:
            self._failed(error)
        except Exception as error:
            # A bug here must neither stop this source for good nor touch the others.
            self._report.crashed()
            what = f"the server failed to reconcile this source ({type(error).__name__})"
            self._failed(DicodeError(Code.INTERNAL, what, hint="see the server's log"))
        except asyncio.CancelledError:
            self._answer(waiters, _shutting_down())
            raise
        self._answer(waiters)

    async def _reconcile(self, *, patient: bool) -> None:
        self._wake.clear()
        woken_at, self._woken_at = self._woken_at, None
        paths, self._paths = self._paths, set()
        whole, self._whole = self._whole, False
        sets, self._sets = self._sets, False
        look = None
        if self._revision is not None and not whole:
            look = await self._look(self._revision, paths, sets)
        if look is None:
            look = await self._search()
        self._apply(look, woken_at, patience=self._timing.patience if patient else 0.0)

    async def _look(self, revision: Revision, paths: set[Path], sets: bool) -> Look | None:
        """Look at what is concerned, or give None when only a search can tell."""
        looker, doubts = self._looker, tuple(self._doubts)

        def work() -> Look | None:
            reach = reach_of(paths, looker.declaration, looker.folders(), doubts)
            if reach is None:
                return None
            if sets or reach.sets:
                return looker.resolve(revision, reach.ids)
            return looker.look(reach.ids)

        look = await self._in_thread(work)
        if look is not None:
            self._looked(revision, look)
        return look

    async def _search(self) -> Look:
        self._searched_at = self._clock.monotonic()
        revision = await self.source.fetch()
        look = await self._in_thread(lambda: self._looker.search(revision))
        self._looked(revision, look)
        return look

    async def _refresh(self) -> None:
        """Ask every repository that the sets name; what is new may name further ones."""
        asked: set[GitRef] = set()
        checkouts = self._outside.checkouts
        while checkouts is not None and (refs := self._needs() - asked):
            asked |= refs
            answers = await asyncio.gather(
                *(checkouts.latest(ref, now=True) for ref in refs), return_exceptions=True
            )
            for answer in answers:
                # a DicodeError is the checkouts' own trouble, which the look shows
                if isinstance(answer, BaseException) and not isinstance(answer, DicodeError):
                    raise answer
            self._sets = True
            await self._reconcile(patient=False)

    def _needs(self) -> frozenset[GitRef]:
        return self._looker.needs

    def _looked(self, revision: Revision, look: Look) -> None:
        if look.declaration is None:
            return
        resolution = look.declaration.resolution
        self._outside.withhold(
            self.source.name,
            [r.auth.token_env for r in resolution.needs if r.auth and r.auth.token_env],
        )
        if self._followers is not None:
            self._followers.follow(self._needs(), folders_to_watch(resolution.outside))
        self._succeeded(revision, look)

    def _apply(self, look: Look, woken_at: float | None, *, patience: float) -> None:
        observed = self._registry.claims(self.source.name)
        now = self._clock.monotonic()
        actions = plan(look.desired, observed)
        settled = settle(actions, look.desired, self._doubts, now=now, patience=patience)
        self._doubts = dict(settled.doubts)
        contested = self._registry.apply(
            self.source.name,
            put=[a.entry for a in settled.actions if a.kind is not Kind.REMOVE],
            remove=[a.entry.id for a in settled.actions if a.kind is Kind.REMOVE],
        )
        took = None if woken_at is None else self._clock.monotonic() - woken_at
        for action in settled.actions:
            self._report.action(action, took)
        for entry in contested:
            self._report.conflict(entry, self._registry.get(entry.id))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    # How the source stands

    def _succeeded(self, revision: Revision, look: Look) -> None:
        self._failures = 0
        self._revision = revision
        self._put(standing.looked(look), look)
        self._report.fetched()

    def _failed(self, error: DicodeError) -> None:
        self._failures += 1
        self._doubts = {}
        said = f"{error.message}; {error.hint}" if error.hint else error.message
        self._put(standing.failed(said, ever=self._revision is not None), None)
        self._report.fetch_failed(said)

    def _put(self, conditions: Sequence[Condition], look: Look | None) -> None:
        old = self._registry.source_state(self.source.name)
        problems = look.problems if look else old.problems if old else ()
        self._registry.put_source(
            SourceState(
                name=self.source.name,
                kind=self.source.kind,
                location=self.source.location,
                revision=self._revision,
                conditions=standing.together(conditions, self.source.conditions()),
                problems=problems,
                off=look.off if look else old.off if old else (),
            )
        )

    @staticmethod
    def _answer(waiters: list[asyncio.Future[None]], error: DicodeError | None = None) -> None:
        for waiter in waiters:
            if waiter.done():
                continue
            if error:
                waiter.set_exception(error)
            else:
                waiter.set_result(None)


def _shutting_down() -> DicodeError:
    return DicodeError(
        Code.SHUTTING_DOWN, "the server is stopping", hint="call again when it has restarted"
    )

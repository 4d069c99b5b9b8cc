"""Reconciles one source: waits for a reason, looks, plans, applies, tells.

A wake only says that something may have changed. It knows no other source.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Revision, Source
from dicode_mcp.reconciler.look import Eyes, Look, Looker
from dicode_mcp.reconciler.plan import Kind, plan, settle
from dicode_mcp.reconciler.report import Reporter
from dicode_mcp.registry import Registry, SourceState

T = TypeVar("T")

_MOST_PATHS = 500
"""Above this many changed paths a whole look is cheaper to reason about."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``patience``: how long a broken or missing file is given to be written whole."""

    resync: float = 30.0
    patience: float = 0.1
    first_retry: float = 1.0


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
    ) -> None:
        self.source = source
        self.first_pass = asyncio.Event()
        self._registry = registry
        self._clock = clock
        self._timing = timing
        self._looker = Looker(source.name, source.namespace, eyes)
        self._report = Reporter(source.name, log)
        self._executor = ThreadPoolExecutor(1, f"dicode-source-{source.name}")
        self._wake = asyncio.Event()
        self._whole = True
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
        look, revision = None, self._revision
        if revision is not None and not whole:
            look = await self._in_thread(lambda: self._look(revision, paths))
        if look is None:
            self._searched_at = self._clock.monotonic()
            fetched = await self.source.fetch()
            look = await self._in_thread(lambda: self._looker.search(fetched))
            self._succeeded(fetched, look)
        self._apply(look, woken_at, patience=self._timing.patience if patient else 0.0)

    def _look(self, revision: Revision, paths: set[Path]) -> Look | None:
        """Read the task folders concerned again, or give None when only a search can tell."""
        folders = self._looker.concerned(paths)
        if folders is None:
            return None
        by_id = {task_id: folder for folder, task_id in self._looker.known().items()}
        for task_id in self._doubts:
            if task_id not in by_id:
                return None
            folders[by_id[task_id]] = task_id
        return self._looker.look(revision, folders)

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
        unread = len(look.desired.unread)
        ready = Condition(ConditionType.READY, True, "Searched")
        if unread:
            said = "\n".join(str(problem) for problem in look.problems)
            ready = Condition(ConditionType.READY, False, "PartlyRead", said)
        synced = Condition(ConditionType.SYNCED, True, "Fetched")
        self._put((ready, synced), look)
        self._report.fetched()

    def _failed(self, error: DicodeError) -> None:
        self._failures += 1
        self._doubts = {}
        said = f"{error.message}; {error.hint}" if error.hint else error.message
        synced = Condition(ConditionType.SYNCED, False, "FetchFailed", said)
        if self._revision is None:
            ready = Condition(ConditionType.READY, False, "NeverFetched", said)
        else:
            ready = Condition(ConditionType.READY, True, "OlderRevision")
        self._put((ready, synced), None)
        self._report.fetch_failed(said)

    def _put(self, conditions: tuple[Condition, ...], look: Look | None) -> None:
        old = self._registry.source_state(self.source.name)
        problems = look.problems if look else old.problems if old else ()
        self._registry.put_source(
            SourceState(
                name=self.source.name,
                kind=self.source.kind,
                location=self.source.location,
                revision=self._revision,
                conditions=(*conditions, *self.source.conditions()),
                problems=problems,
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

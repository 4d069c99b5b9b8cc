"""Live events for whoever may see them: what changes in the house, and one run from start to end.

Changes are kept in a bounded ring from which every reader reads at its own pace: a slow one is told
how many it missed and costs nothing. A run is followed by its row and its stored log, so no line of
it is missed or doubled, however slow the reader is.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import (
    DevModeSwitched,
    Event,
    EventBus,
    LogAppended,
    RunChanged,
    RunProgress,
    SecretChanged,
    SourceChanged,
    TasksChanged,
)
from dicode_mcp.protocols import LogQuery, Store
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Run
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.scopes import READ
from dicode_mcp.service.visible import as_seen

RING = 4096
"""How many changes are kept for readers that are slow or come back."""
HEARTBEAT_S = 15.0
LOG_PAGE = 500
_BUS_QUEUE = 16_384
_TASKS_SHOWN = 1_000

Kind = Literal["run", "task", "source"]
KINDS: tuple[Kind, ...] = ("run", "task", "source")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader asks for. ``task`` is a glob over task ids; ``kinds`` empty means all."""

    kinds: frozenset[str] = frozenset()
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a stream: ``id`` is what a reader resumes from; None is a sign of life."""

    event: str
    data: dict[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A followed run stands so now."""

    run: Run


@dataclass(frozen=True, slots=True)
class Lines:
    """The next lines of a followed run's log."""

    lines: tuple[LogLine, ...]


RunTold = Moved | Lines | RunProgress | None
"""What following a run gives; None is a sign of life."""


@dataclass(frozen=True, slots=True)
class _Kept:
    number: int
    kind: Kind
    tasks: tuple[str, ...]
    data: dict[str, Any]


class _Watch:
    """What a follower of one run has been told of since it last looked."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.moved = True
        self.progress: RunProgress | None = None
        self.wake.set()

    def note(self, event: Event) -> None:
        match event:
            case RunChanged():
                self.moved = True
            case RunProgress():
                self.progress = event
            case _:
                pass
        self.wake.set()


class EventsService:
    """Numbers what the bus tells and hands it to readers. ``run`` is its loop.

    ``epoch`` names this server's life: a number of another life means nothing here.
    """

    def __init__(
        self,
        *,
        bus: EventBus,
        store: Store,
        clock: Clock,
        epoch: str,
        ring: int = RING,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._bus = bus
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._ring: deque[_Kept] = deque(maxlen=ring)
        self._number = 0
        self._heartbeat_s = heartbeat_s
        self._readers: set[asyncio.Event] = set()
        self._watches: dict[str, set[_Watch]] = {}
        self._closed = False

    @property
    def readers(self) -> int:
        """How many streams are open."""
        return len(self._readers) + sum(len(watches) for watches in self._watches.values())

    async def run(self) -> None:
        """Take events from the bus until cancelled."""
        with self._bus.subscribe(_BUS_QUEUE) as subscription:
            lost = 0
            async for event in subscription:
                if subscription.lost > lost:
                    # The gap in the numbers tells readers; followers look for themselves.
                    self._number += subscription.lost - lost
                    lost = subscription.lost
                    self._wake_followers()
                self._take(event)

    def close(self) -> None:
        """End every stream; call it when the server begins to stop."""
        self._closed = True
        for wake in self._readers:
            wake.set()
        for watches in self._watches.values():
            for watch in watches:
                watch.wake.set()

    # ── Changes ──

    def changes(
        self, principal: Principal, wanted: Wanted, resume: str | None = None
    ) -> AsyncGenerator[Told | None]:
        """Give changes that the caller sees, from after ``resume`` or from now on, until closed.

        First comes ``open``. A ``dropped`` event says that changes are missing (``missed`` tells
        how many, when known): read again what matters. None is a sign of life. Raises FORBIDDEN,
        INVALID_ARGUMENT.
        """
        principal.require("read")
        unknown = sorted(wanted.kinds - set(KINDS))
        if unknown:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                f"types holds {unknown[0][:32]!r}, which is no type of event here",
                hint=f"use some of {', '.join(KINDS)}; lines of a log come with run=RUN_ID",
            )
        return self._changes(principal, wanted, resume)

    async def _changes(
        self, principal: Principal, wanted: Wanted, resume: str | None
    ) -> AsyncGenerator[Told | None]:
        wake = asyncio.Event()
        self._readers.add(wake)
        try:
            resumed = self._resumed(resume)
            seen = self._number if resumed is None else resumed
            # Its id is there for a reader that is cut off before the first change.
            yield Told("open", {"at": iso(self._clock.now_ms())}, self._id(seen))
            if resumed is None:
                yield Told("dropped", {"reason": "restarted"}, self._id(seen))
            while not self._closed:
                wake.clear()
                while (step := self._step(seen, principal, wanted)) is not None:
                    seen, told = step
                    if told is not None:
                        yield told
                    if self._closed:
                        return
                if not await self._clock.wait(wake, self._heartbeat_s):
                    yield None
        finally:
            self._readers.discard(wake)

    def _step(
        self, seen: int, principal: Principal, wanted: Wanted
    ) -> tuple[int, Told | None] | None:
        """Give the number that follows ``seen`` and what to tell of it; None when there is none."""
        kept = self._next(seen)
        following = self._number + 1 if kept is None else kept.number
        if missed := following - seen - 1:
            data = {"reason": "slow", "missed": missed}
            return following - 1, Told("dropped", data, self._id(following - 1))
        if kept is None:
            return None
        data = _shown(kept, principal, wanted)
        return kept.number, None if data is None else Told(kept.kind, data, self._id(kept.number))

    def _next(self, seen: int) -> _Kept | None:
        if not self._ring or self._ring[-1].number <= seen:
            return None
        first = self._ring[0].number
        if seen < first:
            return self._ring[0]
        # Numbers have gaps only where the bus lost events, so the place is at or before this.
        index = min(seen + 1 - first, len(self._ring) - 1)
        while index > 0 and self._ring[index - 1].number > seen:
            index -= 1
        return self._ring[index]

    def _resumed(self, resume: str | None) -> int | None:
        """Give the number to go on after; None when it is not of this server's life."""
        if resume is None:
            return self._number
        epoch, _, digits = resume.rpartition("-")
        if epoch != self._epoch or not digits.isascii() or not digits.isdigit():
            return None
        number = int(digits) if len(digits) < 19 else self._number + 1
        return number if number <= self._number else None

    def _id(self, number: int) -> str:
        return f"{self._epoch}-{number}"

    def _take(self, event: Event) -> None:
        match event:
            case RunChanged(run_id, task_id, status):
                self._keep("run", (task_id,), {"run_id": run_id, "task": task_id, "status": status})
            case TasksChanged(task_ids):
                for start in range(0, len(task_ids), _TASKS_SHOWN):
                    self._keep("task", task_ids[start : start + _TASKS_SHOWN], {})
            case SourceChanged(source) | DevModeSwitched(source):
                self._keep("source", (), {"source": source})
            case LogAppended() | RunProgress() | SecretChanged():
                pass
        if isinstance(event, RunChanged | LogAppended | RunProgress):
            for watch in self._watches.get(event.run_id, ()):
                watch.note(event)

    def _keep(self, kind: Kind, tasks: tuple[str, ...], data: dict[str, Any]) -> None:
        self._number += 1
        data["at"] = iso(self._clock.now_ms())
        self._ring.append(_Kept(self._number, kind, tasks, data))
        for wake in self._readers:
            wake.set()

    def _wake_followers(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.moved = True
                watch.wake.set()

    # ── One run ──

    async def follow(
        self,
        run_id: str,
        *,
        after: int = 0,
        level: Level | None = None,
        principal: Principal | None = None,
    ) -> AsyncGenerator[RunTold]:
        """Give a run as it stands, its log after line ``after``, and what comes, to its end.

        The last thing given is the ended run; it ends without that when the server stops or the
        run is gone. Who may follow is the caller's to decide; ``principal`` is told of nothing
        that it may not read. None is a sign of life.
        """
        with self._watched(run_id) as watch:
            told_status = ""
            while not self._closed:
                watch.wake.clear()
                moved, watch.moved = watch.moved, False
                run = await self._store.get_run(run_id) if moved else None
                if moved and run is None:
                    return
                if run is not None and principal is not None:
                    (run,) = await as_seen(self._store, principal, (run,))
                ended = run is not None and run.status.ended
                if run is not None and not ended and run.status != told_status:
                    told_status = run.status.value
                    yield Moved(run)
                progress, watch.progress = watch.progress, None
                if progress is not None and not ended:
                    yield progress
                while True:
                    page = await self._store.read_logs(
                        run_id, LogQuery(after=after, level=level, limit=LOG_PAGE)
                    )
                    if page.lines:
                        after = page.lines[-1].seq
                        yield Lines(page.lines)
                    if page.next_after is None or self._closed:
                        break
                    after = max(after, page.next_after)
                if ended and run is not None:
                    yield Moved(run)
                    return
                if not await self._clock.wait(watch.wake, self._heartbeat_s):
                    yield None

    @contextmanager
    def _watched(self, run_id: str) -> Generator[_Watch]:
        watch = _Watch()
        watches = self._watches.setdefault(run_id, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches and self._watches.get(run_id) is watches:
                del self._watches[run_id]

    async def run_for(self, principal: Principal, run_id: str) -> Run:
        """Give a run that the caller may follow; raises FORBIDDEN, RUN_NOT_FOUND."""
        principal.require("read")
        run = await self._store.get_run(run_id)
        if run is None or not principal.sees(run.task_id):
            raise DicodeError(
                Code.RUN_NOT_FOUND,
                f"run '{run_id[:64]}' not found",
                hint="call get_runs to list runs",
            )
        return run


def _shown(kept: _Kept, principal: Principal, wanted: Wanted) -> dict[str, Any] | None:
    """Give the part of a change that the caller sees and asks for; None when there is none."""
    if wanted.kinds and kept.kind not in wanted.kinds:
        return None
    if kept.kind == "source" and not principal.has_all(READ):
        return None
    if kept.kind == "source":
        return kept.data if wanted.task is None or "source" in wanted.kinds else None
    tasks = [
        task_id
        for task_id in kept.tasks
        if principal.sees(task_id)
        and (wanted.task is None or fnmatch.fnmatchcase(task_id, wanted.task))
    ]
    if not tasks:
        return None
    return {"tasks": tasks, **kept.data} if kept.kind == "task" else kept.data

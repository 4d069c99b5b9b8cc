"""The one way in: every start is a RunRequest given to ``submit``, and a committed row after it.

The queue writes rows, knows who waits for which run, and writes a run's end together with what
follows from it. It starts no process, and it is not the one who judges requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from dicode_mcp.admission import Admission
from dicode_mcp.chains import Chains
from dicode_mcp.clock import Clock
from dicode_mcp.errors import STORAGE_TROUBLE, Code, DicodeError
from dicode_mcp.events import EventBus, RunChanged
from dicode_mcp.protocols import Dispatcher, Store
from dicode_mcp.registry import Registry
from dicode_mcp.runs.model import (
    Outcome,
    Payload,
    Reason,
    Run,
    RunError,
    RunRequest,
    RunStatus,
    Trigger,
)
from dicode_mcp.spec.model import FailureChain, Task

log = logging.getLogger("dicode.queue")

_FRESH_KEPT = 256
_STORE_PAUSES_S = (0.1, 0.5, 1.0, 2.0)

T = TypeVar("T")

Stopper = Callable[[Reason], None]


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that is now running, with the task version and the payload it runs with."""

    run: Run
    task: Task
    payload: Payload


class Queue:
    """Submits, waits, cancels and finishes runs. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        chains: Chains,
        dispatcher: Dispatcher,
        bus: EventBus,
        clock: Clock,
        on_failure_chain: FailureChain | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._dispatcher = dispatcher
        self._bus = bus
        self._clock = clock
        self._admission = Admission(registry, chains, clock, on_failure_chain)
        self._fresh: OrderedDict[str, tuple[Run, Payload]] = OrderedDict()
        self._waiters: dict[str, set[asyncio.Future[Run]]] = {}
        self._stoppers: dict[str, Stopper] = {}
        self._stops_wanted: dict[str, Reason] = {}
        """Stops asked for between a run's claim and the moment its stopper is known."""
        self._refusing: DicodeError | None = None

    # ── Starting ─────────────────────────────────────────────────────────────────────────────

    async def submit(self, request: RunRequest) -> Run:
        """Commit a run and hand it to the dispatcher.

        Gives the stored run; with an idempotency key or slot that was used before, the run that
        used it. Raises TASK_NOT_FOUND, TASK_NOT_READY, TASK_PAUSED, INVALID_PARAMS, TOO_LARGE,
        SHUTTING_DOWN or a storage error, and then nothing was written.
        """
        if self._refusing is not None:
            raise self._refusing
        run, payload = self._admission.admit(request)
        stored = await self._store.add_run(run, payload)
        if stored.id == run.id:
            self._admit(run, payload)
        elif stored.status is RunStatus.QUEUED:
            # Its own submit may have failed after the commit; the dispatcher knows if it did not.
            self._dispatch(stored)
        return stored

    async def record(
        self, request: RunRequest, error: RunError, status: RunStatus = RunStatus.SKIPPED
    ) -> Run:
        """Commit a run that is over before it began, so that it is seen and its slot is taken.

        Gives the stored run; with a slot that has a run already, that one. Raises TASK_NOT_FOUND
        or a storage error.
        """
        if self._registry.get(request.task_id) is None:
            raise self._registry.unknown_task(request.task_id)
        row, payload = self._admission.over(request, error, status)
        stored = await self._store.add_run(row, payload)
        if stored.id == row.id:
            self._publish(row)
        return stored

    def refuse(self, error: DicodeError | None) -> None:
        """Refuse every further submit with ``error``; None accepts again."""
        self._refusing = error

    def _admit(self, run: Run, payload: Payload) -> None:
        self._fresh[run.id] = (run, payload)
        if len(self._fresh) > _FRESH_KEPT:
            self._fresh.popitem(last=False)
        self._publish(run)
        self._dispatch(run)

    def _dispatch(self, run: Run) -> None:
        self._dispatcher.submit(
            run.id,
            priority=run.priority,
            created_at_ms=run.created_at_ms,
            not_before_ms=run.not_before_ms,
            # A daemon lasts as long as the server: it would keep its slot for ever.
            slotless=run.trigger is Trigger.DAEMON,
        )

    async def claim(self, run_id: str) -> Claim | None:
        """Move a run the dispatcher gave out to running, for the task in force now.

        None when there is nothing to run: it was cancelled meanwhile, or its task is gone, and
        then the run is ended here with that reason.
        """
        run, payload = self._fresh.pop(run_id, (None, None))
        if run is None:
            run = await self._patiently(run_id, lambda: self._existing(run_id))
        entry = self._registry.get(run.task_id)
        task = entry.task if entry else None
        if task is None:
            await self.finish(run, _task_gone(run.task_id, self._clock.now_ms()))
            return None
        run = await self._start(run, task)
        if payload is None:
            stored = await self._patiently(run_id, lambda: self._store.get_payload(run_id))
            payload = stored or Payload()
        self._publish(run)
        return Claim(run, task, payload)

    async def _start(self, run: Run, task: Task) -> Run:
        def start() -> Awaitable[Run]:
            now = self._clock.now_ms()
            return self._store.start_run(
                run.id, now_ms=now, task_hash=task.digest, revision=task.revision
            )

        def is_ours(stored: Run) -> bool:
            return stored.status is RunStatus.RUNNING and stored.fence == run.fence + 1

        return await self._patiently(run.id, start, is_ours)

    # ── Waiting ──────────────────────────────────────────────────────────────────────────────

    async def wait(self, run_id: str, timeout_s: float | None) -> Run:
        """Give the run once it has ended, or as it is after ``timeout_s`` seconds.

        Raises RUN_NOT_FOUND. Cancelling the wait never touches the run.
        """
        future: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(run_id, set())
        waiters.add(future)
        try:
            run = await self._existing(run_id)
            if run.status.ended or timeout_s == 0:
                return run
            try:
                async with asyncio.timeout(timeout_s):
                    return await future
            except TimeoutError:
                return await self._existing(run_id)
        finally:
            waiters.discard(future)
            if not waiters:
                self._waiters.pop(run_id, None)

    async def wait_as_parent(self, parent_id: str, run_id: str) -> Run:
        """Wait for a child without a time limit, lending the parent's slot meanwhile."""
        self._dispatcher.lend(parent_id)
        try:
            return await self.wait(run_id, None)
        finally:
            self._dispatcher.reclaim(parent_id)

    async def _existing(self, run_id: str) -> Run:
        run = await self._store.get_run(run_id)
        if run is None:
            raise DicodeError(
                Code.RUN_NOT_FOUND,
                f"run '{run_id[:64]}' not found",
                hint="call get_runs to list runs",
            )
        return run

    # ── Ending ───────────────────────────────────────────────────────────────────────────────

    async def cancel(self, run_id: str, reason: Reason = Reason.CANCELLED) -> Run:
        """End a run at the caller's wish; gives it as it then stands.

        A queued run ends at once; a running one when its process tree is gone (not awaited here).
        One that has ended is given unchanged.
        """
        run = await self._existing(run_id)
        if run.status in (RunStatus.QUEUED, RunStatus.WAITING):
            try:
                return await self.finish(
                    run,
                    Outcome(
                        RunStatus.CANCELLED,
                        self._clock.now_ms(),
                        reason=reason,
                    ),
                )
            except DicodeError as error:
                if error.code is not Code.CONFLICT:
                    raise
                run = await self._existing(run_id)
        if run.status is RunStatus.RUNNING:
            stopper = self._stoppers.get(run_id)
            if stopper is not None:
                stopper(reason)
            else:
                self._stops_wanted.setdefault(run_id, reason)
        return run

    def on_stop(self, run_id: str, stopper: Stopper | None) -> None:
        """Set (or with None take away) what ends a running run."""
        if stopper is None:
            self._stoppers.pop(run_id, None)
            return
        self._stoppers[run_id] = stopper
        wanted = self._stops_wanted.pop(run_id, None)
        if wanted is not None:
            stopper(wanted)

    def stop_all(self, reason: Reason) -> None:
        """Ask every run that is on to end."""
        for stopper in list(self._stoppers.values()):
            stopper(reason)

    async def finish(self, run: Run, outcome: Outcome) -> Run:
        """Write a run's end and its follow-ups in one transaction, and tell whoever waits.

        While the store cannot write (disk full, locked) it is tried again for as long as needed:
        the end of a run is never dropped. Raises CONFLICT when the run was ended otherwise.
        """
        ended = replace(
            run,
            status=outcome.status,
            finished_at_ms=outcome.finished_at_ms,
            reason=outcome.reason,
            error=outcome.error,
            return_value=outcome.return_value,
            output=outcome.output,
        )
        follow_ups = self._admission.follow_ups(ended)
        try:
            stored = await self._write_end(run, outcome, follow_ups)
        finally:
            self._dispatcher.discard(run.id)
            self._dispatcher.release(run.id)
            self._fresh.pop(run.id, None)
            self._stops_wanted.pop(run.id, None)
        self._publish(stored)
        for row, payload in follow_ups:
            if row.status is RunStatus.QUEUED:
                self._admit(row, payload)
        for future in self._waiters.get(run.id, ()):
            if not future.done():
                future.set_result(stored)
        return stored

    async def _write_end(
        self, run: Run, outcome: Outcome, follow_ups: list[tuple[Run, Payload]]
    ) -> Run:
        def is_ours(stored: Run) -> bool:
            return (stored.status, stored.finished_at_ms, stored.fence) == (
                outcome.status,
                outcome.finished_at_ms,
                run.fence,
            )

        return await self._patiently(
            run.id, lambda: self._store.finish_run(run, outcome, follow_ups), is_ours
        )

    async def _patiently(
        self,
        run_id: str,
        call: Callable[[], Awaitable[T]],
        is_ours: Callable[[T], bool] | None = None,
    ) -> T:
        """Make a call of the store, again and again while its disk or database is in trouble.

        An earlier try may have been committed though it failed: then the next one meets a
        CONFLICT, and the stored run that ``is_ours`` knows again is the answer.
        """
        attempt = 0
        while True:
            try:
                return await call()
            except DicodeError as error:
                if error.code is Code.CONFLICT and attempt and is_ours is not None:
                    stored = await self._patiently(run_id, lambda: self._store.get_run(run_id))
                    if stored is not None and is_ours(cast(T, stored)):
                        return cast(T, stored)
                if error.code not in STORAGE_TROUBLE:
                    raise
                log.warning(
                    "the store cannot take a step of a run; it is tried again",
                    extra={"run_id": run_id, "code": error.code.value},
                )
            await asyncio.sleep(_STORE_PAUSES_S[min(attempt, len(_STORE_PAUSES_S) - 1)])
            attempt += 1

    # ── After a crash ────────────────────────────────────────────────────────────────────────

    async def recover(self) -> tuple[int, int]:
        """Deal with what a former server left: queued runs go on, running ones are lost.

        Gives how many of each. Call once, before the dispatcher opens and with the registry full.
        """
        requeued = lost = 0
        for run in await self._store.unfinished_runs():
            if run.status is RunStatus.QUEUED and run.trigger is Trigger.DAEMON:
                # Whoever supervises daemons starts them anew; this one would be a second instance.
                await self.finish(run, _daemon_left(self._clock.now_ms()))
            elif run.status is RunStatus.QUEUED:
                self._dispatch(run)
                requeued += 1
            elif run.status is RunStatus.RUNNING:
                await self.finish(run, _lost(self._clock.now_ms()))
                lost += 1
        return requeued, lost

    def _publish(self, run: Run) -> None:
        self._bus.publish(RunChanged(run.id, run.task_id, run.status.value))


def _task_gone(task_id: str, now_ms: int) -> Outcome:
    return Outcome(
        RunStatus.FAILURE,
        now_ms,
        reason=Reason.TASK_GONE,
        error=RunError(
            Reason.TASK_GONE,
            f"task {task_id} was removed before this run could start",
            "call list_tasks to see the tasks there are",
        ),
    )


def _daemon_left(now_ms: int) -> Outcome:
    return Outcome(
        RunStatus.CANCELLED,
        now_ms,
        reason=Reason.SHUTDOWN,
        error=RunError(
            Reason.SHUTDOWN, "the server stopped before this daemon began; it is started anew"
        ),
    )


def _lost(now_ms: int) -> Outcome:
    return Outcome(
        RunStatus.LOST,
        now_ms,
        reason=Reason.SERVER_CRASHED,
        error=RunError(
            Reason.SERVER_CRASHED,
            "the server ended while this run was on; what the task had done by then is unknown",
            "call run_task again if the task may safely repeat",
        ),
    )

"""The one way in: every start is a RunRequest given to ``submit``, and a committed row after it.

The queue writes rows, knows who waits for which run, and writes a run's end together with what
follows from it. It starts no process, and it is not the one who judges requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo

from dicode_mcp.admission import Admission
from dicode_mcp.budgets import Budgets
from dicode_mcp.chains import Chains
from dicode_mcp.clock import Clock
from dicode_mcp.errors import STORAGE_TROUBLE, Code, DicodeError
from dicode_mcp.events import EventBus, RunChanged, TasksChanged
from dicode_mcp.limits import Limits
from dicode_mcp.protocols import Dispatcher, Store
from dicode_mcp.registry import Registry
from dicode_mcp.runs.budget import DaySpent
from dicode_mcp.runs.limits import Group, group_of
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
from dicode_mcp.runs.notices import Telling
from dicode_mcp.runs.questions import Answered, Draft, put
from dicode_mcp.runs.retry import too_late
from dicode_mcp.spec.model import FailureChain, RunInputsSpec, Task
from dicode_mcp.telling import Notices

log = logging.getLogger("dicode.queue")

_FRESH_KEPT = 256
_STORE_PAUSES_S = (0.1, 0.5, 1.0, 2.0)

T = TypeVar("T")

Stopper = Callable[[Reason], None]


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that is now running, with the task version and the payload it runs with.

    ``resumed``: it began before, and goes on after an answer; ``began_as`` is then the hash of the
    version it had.
    """

    run: Run
    task: Task
    payload: Payload
    resumed: bool = False
    began_as: str = ""


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
        notices: Notices | None = None,
        random: Random | None = None,
        run_inputs: RunInputsSpec | None = None,
        budgets: Budgets | None = None,
        right_lost_by: Callable[[Run], str | None] = lambda run: None,
    ) -> None:
        self._store = store
        self._right_lost_by = right_lost_by
        """Gives who asked for a run, or for what it comes of, and may not any more."""
        self._registry = registry
        self._dispatcher = dispatcher
        self._bus = bus
        self._clock = clock
        self._admission = Admission(
            registry, chains, clock, on_failure_chain, notices, random, run_inputs
        )
        self._limits = Limits(registry, dispatcher)
        self._budgets = budgets or Budgets(registry, store, clock, ZoneInfo("UTC"))
        self._fresh: OrderedDict[str, tuple[Run, Payload]] = OrderedDict()
        self._unended: set[str] = set()
        """Runs of this process that are surely not over: whoever waits need not ask the store."""
        self._given: dict[str, Task] = {}
        """The tasks of queued runs that are none of those in force."""
        self._waiters: dict[str, set[asyncio.Future[Run]]] = {}
        self._stoppers: dict[str, Stopper] = {}
        self._stops_wanted: dict[str, Reason] = {}
        """Stops asked for between a run's claim and the moment its stopper is known."""
        self._refusing: DicodeError | None = None

    # ── Starting ─────────────────────────────────────────────────────────────────────────────

    async def submit(self, request: RunRequest) -> Run:
        """Commit a run and hand it to the dispatcher.

        Gives the stored run; with an idempotency key or slot that was used before, the run that
        used it; and one that is over already (skipped) where the task's concurrency or budget says
        so. Raises TASK_NOT_FOUND, TASK_NOT_READY, TASK_PAUSED, INVALID_PARAMS, TOO_LARGE,
        SHUTTING_DOWN or a storage error, and then nothing was written.
        """
        if self._refusing is not None:
            raise self._refusing
        run, payload = self._admission.admit(request)
        await self._limits.clear(run)
        refused = self._refusal(run)
        if refused is not None:
            run, payload = self._admission.skipped(run, payload, refused)
        with self._limits.coming(run):
            stored = await self._commit(run, payload, request.given)
            if stored.id == run.id:
                self._take(run, payload, request.given)
        if stored.id == run.id:
            await self._make_room(run)
        elif stored.status is RunStatus.QUEUED:
            # Its own submit may have failed after the commit; the dispatcher knows if it did not.
            known = await self._store.get_run(stored.id)
            if known is not None and known.status is RunStatus.QUEUED:
                self._dispatch(known)
        return stored

    async def _commit(self, run: Run, payload: Payload, given: Task | None) -> Run:
        """Commit a row. The run starts also when its caller leaves before the commit is known."""
        adding = asyncio.ensure_future(self._store.add_run(run, payload))

        def left(done: asyncio.Future[Run]) -> None:
            if not done.cancelled() and done.exception() is None and done.result().id == run.id:
                self._take(run, payload, given)

        try:
            return await asyncio.shield(adding)
        except asyncio.CancelledError:
            adding.add_done_callback(left)
            raise

    def _take(self, run: Run, payload: Payload, given: Task | None) -> None:
        if given is not None:
            self._given[run.id] = given
        self._admit(run, payload)

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

    def in_the_way(self, request: RunRequest) -> str | None:
        """Give a run of the request's group that leaves no place for it; None when there is one.

        Raises what ``submit`` raises for the request itself.
        """
        run, _ = self._admission.admit(request)
        return self._limits.in_the_way(run)

    async def use(self, run: Run, tokens: int) -> dict[str, Any]:
        """Keep tokens that a run reports; see ``Budgets.use``."""
        return await self._budgets.use(run, tokens)

    def spending(self, task: Task) -> dict[str, Any] | None:
        """Show what a task has spent of its budget today; None without one."""
        return self._budgets.view(task)

    def refuse(self, error: DicodeError | None) -> None:
        """Refuse every further submit with ``error``; None accepts again."""
        self._refusing = error

    def _refusal(self, run: Run) -> RunError | None:
        entry = self._registry.get(run.task_id)
        of_budget = None if run.trigger is Trigger.TEST else self._budgets.refusal(entry)
        return of_budget or self._limits.overlap(run)

    async def _make_room(self, run: Run) -> None:
        """End the runs whose place a stored one takes (``concurrency.overlap: replace``)."""
        for run_id in self._limits.replaced(run) if run.status is RunStatus.QUEUED else ():
            try:
                await self.cancel(run_id, Reason.REPLACED)
            except DicodeError as error:
                log.warning(
                    "a run could not be replaced; the newer one waits for its end",
                    extra={"run_id": run_id, "newer": run.id, "code": error.code.value},
                )

    def _admit(self, run: Run, payload: Payload | None) -> None:
        if run.status is not RunStatus.QUEUED:
            self._publish(run)
            return
        if payload is not None:
            self._fresh[run.id] = (run, payload)
            self._unended.add(run.id)
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
            group=None if run.trigger is Trigger.TEST else group_of(run),
        )

    async def claim(self, run_id: str) -> Claim | None:
        """Move a run the dispatcher gave out to running, for the task in force now.

        None when there is nothing to run: it was cancelled meanwhile, or its task is gone, and
        then the run is ended here with that reason.
        """
        run, payload = self._fresh.pop(run_id, (None, None))
        if run is None:
            run = await self._patiently(run_id, lambda: self._existing(run_id))
        late = too_late(run, self._clock.now_ms())
        if late is not None:
            await self.finish(run, late)
            return None
        lost_by = self._right_lost_by(run)
        if lost_by is not None:
            await self.finish(run, _forbidden(run, lost_by, self._clock.now_ms()))
            return None
        entry = self._registry.get(run.task_id)
        task = self._given.pop(run_id, None) or (entry.task if entry else None)
        if task is None:
            await self.finish(run, _task_gone(run.task_id, self._clock.now_ms()))
            return None
        resumed, began_as = run.started_at_ms is not None, run.task_hash
        counts = not resumed and run.trigger is not Trigger.TEST
        spent_out = self._budgets.refusal(entry) if counts else None
        if spent_out is not None:
            await self.finish(run, _skip(spent_out, self._clock.now_ms()))
            return None
        with self._budgets.beginning(task if counts else None) as spent:
            run = await self._start(run, task, spent)
        if payload is None:
            try:
                stored = await self._patiently(run_id, lambda: self._store.get_payload(run_id))
            except DicodeError as error:
                if error.code is not Code.SECRETS_LOCKED:
                    raise
                await self.finish(run, _unreadable(error, self._clock.now_ms()))
                return None
            payload = stored or Payload()
        self._publish(run)
        return Claim(run, task, payload, resumed, began_as)

    async def _start(self, run: Run, task: Task, spent: DaySpent | None) -> Run:
        def start() -> Awaitable[Run]:
            now = self._clock.now_ms()
            return self._store.start_run(
                run.id, now_ms=now, task_hash=task.digest, revision=task.revision, spent=spent
            )

        def is_ours(stored: Run) -> bool:
            return stored.status is RunStatus.RUNNING and stored.fence == run.fence + 1

        return await self._patiently(run.id, start, is_ours)

    # ── Waiting ──────────────────────────────────────────────────────────────────────────────

    async def wait(
        self, run_id: str, timeout_s: float | None, *, question_after: int | None = None
    ) -> Run:
        """Give the run once it has ended, or as it is after ``timeout_s`` seconds.

        With ``question_after`` also once it waits for an answer, asked by a start with a greater
        fence. Raises RUN_NOT_FOUND. Cancelling the wait never touches the run.
        """
        if timeout_s == 0:
            return await self._existing(run_id)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with self._told(run_id) as halt:
                        run = None if run_id in self._unended else await self._existing(run_id)
                        if run is None or not _is_due(run, question_after):
                            run = await halt
                    if _is_due(run, question_after):
                        return run
        except TimeoutError:
            return await self._existing(run_id)

    @contextmanager
    def _told(self, run_id: str) -> Generator[asyncio.Future[Run]]:
        """Give what is set when the run ends or comes to wait for an answer."""
        future: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(run_id, set())
        waiters.add(future)
        try:
            yield future
        finally:
            waiters.discard(future)
            if not waiters:
                self._waiters.pop(run_id, None)

    async def wait_as_parent(self, parent_id: str, run_id: str) -> Run:
        """Wait for a child without a time limit, lending the parent's slot meanwhile."""
        self._dispatcher.lend(parent_id)
        try:
            with self._limits.waiting(parent_id, run_id) as goes_on_to:
                await self._end_if_stuck(run_id)
                return await self.wait_series(run_id, None, on_attempt=goes_on_to)
        finally:
            self._dispatcher.reclaim(parent_id)

    async def follow_limits(self) -> None:
        """Hold to the limits of changed tasks, and end what can never start, until cancelled."""
        with self._bus.subscribe(kinds=(TasksChanged, RunChanged)) as events:
            while True:
                if isinstance(await events.get(), TasksChanged):
                    self._dispatcher.limits_changed()
                for run_id in self._limits.awaited():
                    await self._end_if_stuck(run_id)

    async def _end_if_stuck(self, run_id: str) -> None:
        error = self._limits.standstill(run_id)
        if error is None:
            return
        run = await self._existing(run_id)
        with _unless_moved():
            await self.finish(run, _skip(error, self._clock.now_ms()))

    async def wait_series(
        self,
        run_id: str,
        timeout_s: float | None,
        *,
        question_after: int | None = None,
        on_attempt: Callable[[str], object] | None = None,
    ) -> Run:
        """Wait as ``wait`` does, and on from an attempt that failed to the one that follows it.

        Gives the last attempt; or, when the next one is not to start within ``timeout_s``, the one
        that failed before it, at once. ``on_attempt`` is told the id of each attempt it goes on to.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left = None if until is None else max(0.0, until - loop.time())
            run = await self.wait(run_id, left, question_after=question_after)
            following = await self.next_attempt(run)
            if following is None:
                return run
            due_s = ((following.not_before_ms or 0) - self._clock.now_ms()) / 1000
            if left is not None and (due_s > left or left == 0):
                return run
            run_id = following.id
            if question_after is not None:
                question_after = 0
            if on_attempt is not None:
                on_attempt(run_id)

    async def next_attempt(self, run: Run) -> Run | None:
        """Give the attempt that follows a run which ended, if there is one."""
        if not run.status.ended or run.status in (RunStatus.SUCCESS, RunStatus.SKIPPED):
            return None
        attempts = await self._store.attempts(run.id)
        return next((other for other in attempts if other.retry_of == run.id), None)

    async def _existing(self, run_id: str) -> Run:
        run = await self._store.get_run(run_id)
        if run is None:
            raise DicodeError(
                Code.RUN_NOT_FOUND,
                f"run '{run_id[:64]}' not found",
                hint="call get_runs to list runs",
            )
        return run

    # ── Asking ───────────────────────────────────────────────────────────────────────────────

    async def suspend(
        self, run: Run, draft: Draft, *, cpu_ms: int | None = None, tokens: int | None = None
    ) -> Run:
        """Let a run whose process is gone wait for the answer to what it asked.

        It holds no slot while it waits. Tried for as long as the store cannot write, as an end is.
        Raises CONFLICT when the run was ended otherwise.
        """
        tokens = self._budgets.tokens_of(run.id) if tokens is None else tokens
        asked = await self._patiently(run.id, lambda: self._store.questions(run.id))
        question = put(draft, run.id, len(asked) + 1, self._clock.now_ms())

        def is_ours(stored: Run) -> bool:
            # A greater fence: it was answered, and started again, before this was known.
            return stored.fence > run.fence or stored.paused_at_ms == question.asked_at_ms

        # Before the write: an answer may queue the run again as soon as it is committed.
        self._dispatcher.release(run.id)
        stored = await self._patiently(
            run.id,
            lambda: self._store.suspend_run(run, question, cpu_ms=cpu_ms, tokens=tokens),
            is_ours,
        )
        wanted = self._stops_wanted.pop(run.id, None)
        self._unended.discard(run.id)
        self._publish(stored)
        self._tell(stored)
        return stored if wanted is None else await self.cancel(run.id, wanted)

    async def answer(self, run_id: str, n: int, answered: Answered) -> Run:
        """Keep the answer to question ``n`` of a run and queue it again; gives the queued run.

        Raises RUN_NOT_FOUND, and CONFLICT when it was answered already or its run does not wait.
        """
        tries: list[int] = []

        async def attempt() -> Run:
            tries.append(n)
            return await self._store.answer_question(run_id, n, answered)

        try:
            run = await self._patiently(run_id, attempt)
        except DicodeError as error:
            if error.code is not Code.CONFLICT:
                raise
            run = await self._existing(run_id)
            if run.status is RunStatus.QUEUED:
                # Whoever answered may have failed after the commit; the dispatcher knows if not.
                self._dispatch(run)
            asked = await self._store.questions(run_id)
            if len(tries) == 1 or all((q.n, q.answered) != (n, answered) for q in asked):
                raise
        self._publish(run)
        if run.status is RunStatus.QUEUED:
            self._dispatch(run)
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
                waited = run.status is RunStatus.WAITING
                run = await self._existing(run_id)
                if waited and run.status is RunStatus.QUEUED:
                    return await self.cancel(run_id, reason)
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
        outcome = replace(outcome, tokens=outcome.tokens or self._budgets.tokens_of(run.id))
        spent = self._budgets.end(run, outcome)
        follow_ups = self._admission.follow_ups(ended)
        again = any(row.retry_of == run.id for row, _ in follow_ups)
        notice = None if again else self._admission.notice(ended)
        joins, joined = self._admission.joins(ended, follow_ups)
        keep_input = self._admission.keeps_input(run.task_id)

        def write() -> Awaitable[Run]:
            return self._store.finish_run(
                run,
                outcome,
                follow_ups,
                notice=notice,
                joins=joins,
                keep_input=keep_input,
                spent=spent,
            )

        # After a refusal (CONFLICT) the run is somebody else's, with its slot and place.
        stored = await self._write_end(run, outcome, write)
        self._unended.discard(run.id)
        self._budgets.add(spent)
        self._budgets.forget(run.id)
        if run.status is not RunStatus.WAITING:
            # A waiting run has nothing there, and may have been answered and queued meanwhile.
            self._dispatcher.discard(run.id)
            self._dispatcher.release(run.id)
        self._fresh.pop(run.id, None)
        self._given.pop(run.id, None)
        self._stops_wanted.pop(run.id, None)
        self._publish(stored)
        queued = [(row, p) for row, p in follow_ups if row.status is RunStatus.QUEUED]
        let_in = [(row, self._let_in(row, payload)) for row, payload in queued]
        self._tell(stored)
        for row, refused in let_in:
            await self._settle_in(row, refused)
        if isinstance(notice, Telling):
            await self._hand_on(notice.row_id)
        for row_id in joined:
            await self._hand_on(row_id)
        return stored

    async def _hand_on(self, row_id: str) -> None:
        """Hand over a run that the finishing transaction may have come to."""
        row = await self._patiently(row_id, lambda: self._store.get_run(row_id))
        if row is None:
            return
        if row.status is RunStatus.QUEUED:
            await self._settle_in(row, self._let_in(row, None))

    def _let_in(self, row: Run, payload: Payload | None) -> RunError | None:
        """Take up a row that another run's end has added, or say why it is to be skipped."""
        refused = self._limits.overlap(row)
        if refused is None:
            self._admit(row, payload)
        else:
            self._publish(row)
        return refused

    async def _settle_in(self, row: Run, refused: RunError | None) -> None:
        if refused is None:
            await self._make_room(row)
            return
        with _unless_moved():
            await self.finish(row, _skip(refused, self._clock.now_ms()))

    def _tell(self, run: Run) -> None:
        """Tell whoever waits for a run that it has ended, or waits for an answer."""
        for future in self._waiters.get(run.id, ()):
            if not future.done():
                future.set_result(run)

    async def _write_end(
        self, run: Run, outcome: Outcome, write: Callable[[], Awaitable[Run]]
    ) -> Run:
        def is_ours(stored: Run) -> bool:
            return (stored.status, stored.finished_at_ms, stored.fence) == (
                outcome.status,
                outcome.finished_at_ms,
                run.fence,
            )

        return await self._patiently(run.id, write, is_ours)

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
        await self._budgets.load()
        requeued = lost = 0
        newest: dict[Group, Run] = {}
        for run in await self._store.unfinished_runs():
            if run.status is RunStatus.QUEUED and run.trigger is Trigger.DAEMON:
                # Whoever supervises daemons starts them anew; this one would be a second instance.
                await self.finish(run, _daemon_left(self._clock.now_ms()))
            elif run.status is RunStatus.QUEUED and run.trigger is Trigger.AGENT:
                await self.finish(run, _caller_gone(self._clock.now_ms()))
            elif run.status is RunStatus.QUEUED:
                self._dispatch(run)
                newest[group_of(run)] = run
                requeued += 1
            elif run.status is RunStatus.RUNNING:
                await self.finish(run, _lost(self._clock.now_ms()))
                lost += 1
        for run in newest.values():
            await self._make_room(run)
        return requeued, lost

    def _publish(self, run: Run) -> None:
        self._bus.publish(RunChanged(run.id, run.task_id, run.status.value, run.duration_ms))


def _is_due(run: Run, question_after: int | None) -> bool:
    if question_after is None or run.status is not RunStatus.WAITING:
        return run.status.ended
    return run.fence > question_after


@contextmanager
def _unless_moved() -> Generator[None]:
    """Let be that a run was ended, or started, otherwise meanwhile."""
    try:
        yield
    except DicodeError as error:
        if error.code is not Code.CONFLICT:
            raise


def _skip(error: RunError, now_ms: int) -> Outcome:
    return Outcome(RunStatus.SKIPPED, now_ms, reason=error.code, error=error)


def _forbidden(run: Run, lost_by: str, now_ms: int) -> Outcome:
    """Give the end of a run whose asker has lost the right to it since."""
    who = lost_by.partition("#")[0]
    if lost_by == run.actor:
        what = f"{who} asked for this run and may not run {run.task_id} any more"
    else:
        # Not which run: who reads this one may not know of that one.
        what = f"{who}, who asked for what this run comes of, is not in force any more"
    error = RunError(
        Reason.FORBIDDEN,
        what,
        "whoever may run the task can start it: run_task, or replay_run with this run's id",
    )
    began = run.started_at_ms is not None
    status = RunStatus.CANCELLED if began else RunStatus.SKIPPED
    return Outcome(status, now_ms, reason=Reason.FORBIDDEN, error=error)


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


def _unreadable(error: DicodeError, now_ms: int) -> Outcome:
    told = RunError(Reason.START_FAILED, error.message, error.hint)
    return Outcome(RunStatus.FAILURE, now_ms, reason=Reason.START_FAILED, error=told)


def _caller_gone(now_ms: int) -> Outcome:
    return Outcome(
        RunStatus.CANCELLED,
        now_ms,
        reason=Reason.SHUTDOWN,
        error=RunError(
            Reason.SHUTDOWN, "the server ended, and with it the run that had called this agent"
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

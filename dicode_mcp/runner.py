"""The loop that turns claimed runs into processes, and processes into stored ends.

It knows no runtime by name and no surface: a runtime describes the process, the executor owns it,
a session talks with it, the queue writes the end.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dicode_mcp.accesses import AccessBook, Observed, observed
from dicode_mcp.clock import Clock
from dicode_mcp.environment import Resolved, too_short
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus, LogAppended
from dicode_mcp.outcome import cpu_ms_of, decide, without_secrets
from dicode_mcp.protocols import (
    Dispatcher,
    Executor,
    Exit,
    Launch,
    LaunchContext,
    LogQuery,
    Observing,
    Process,
    RawLine,
    Report,
    Runtime,
    Session,
    Sessions,
    Store,
)
from dicode_mcp.queue import Claim, Queue
from dicode_mcp.runs.accesses import Access, lines_for
from dicode_mcp.runs.log_room import LogLimits, LogRoom
from dicode_mcp.runs.logs import Level, LogLine, read_line
from dicode_mcp.runs.model import Outcome, Reason, Run, RunError, RunStatus, Trigger
from dicode_mcp.runs.questions import Draft, pause_line, resume_line
from dicode_mcp.spec.model import Task

log = logging.getLogger("dicode.runner")

T = TypeVar("T")


class Resolver(Protocol):
    """What gives a run its environment."""

    async def resolve(self, run: Run, task: Task) -> Resolved:
        """Give the variables of one run, and what must not be seen of them."""
        ...


_REPORT_WAIT_S = 5.0
_LINE_OVERHEAD = 100
_MOST_BLOCKED = 20
_TOLD_LATE = frozenset({"read", "write", "sys"})
"""Not the environment: libraries look for dozens of variables and do without them."""
_UNWIND_S = 10.0
"""How long a script that has asked may take to unwind before its process is ended."""

_FAULT = RunError(
    Reason.INTERNAL,
    "a fault of the server, not of the task, ended this run; the server's log has the details",
    "run the task again; if it happens again, report it with the server's log",
)

_REASONS = {
    Code.SECRET_MISSING: Reason.SECRET_MISSING,
    Code.SECRETS_LOCKED: Reason.SECRET_MISSING,
    Code.SANDBOX_UNAVAILABLE: Reason.SANDBOX_UNAVAILABLE,
    Code.RUNTIME_UNAVAILABLE: Reason.RUNTIME_UNAVAILABLE,
    Code.INVALID_ARGUMENT: Reason.ENV_MISSING,
}


class RunLog:
    """Numbers a run's lines and hands them to the store in order, in batches.

    Once the log is full, older lines make room in the store. A store that takes lines more slowly
    than they come loses the newest of them, so that memory stays bounded.
    """

    def __init__(
        self, run_id: str, store: Store, bus: EventBus, limits: LogLimits, last_seq: int = 0
    ) -> None:
        self._run_id = run_id
        self._store = store
        self._bus = bus
        self._room = LogRoom(limits)
        self._most_pending = 2 * limits.max_bytes
        self._seq = last_seq
        self._pending: list[LogLine] = []
        self._pending_size = 0
        self._untaken = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._blocked: list[str] = []

    def sink(self, lines: Sequence[RawLine]) -> None:
        """Take raw lines of the process; never blocks."""
        for raw in lines:
            level, message = read_line(raw.stream, raw.text)
            self._add(raw.ts_ms, level, message)
        self._wake.set()

    def write(self, ts_ms: int, level: Level, message: str) -> None:
        """Add a line of the server's own."""
        self._add(ts_ms, level, message)
        self._wake.set()

    def write_refused(self, ts_ms: int, refused: Sequence[Access]) -> None:
        """Tell what the run was refused, unless a line of the log has it already."""
        for access in refused[:_MOST_BLOCKED]:
            (line,) = lines_for([access]) or [""]
            if line and not any(line in told for told in self._blocked):
                text = f"blocked: {access.kind} {access.what} - add to task.yaml: {line}"
                self.write(ts_ms, Level.SECURITY, text)

    def close(self) -> None:
        """Let ``pump`` end once everything taken is stored."""
        self._closed = True
        self._wake.set()

    async def pump(self) -> None:
        """Store and publish lines until closed. A store that cannot write costs lines, not runs."""
        while not (self._closed and not self._pending):
            await self._wake.wait()
            self._wake.clear()
            batch = self._depart()
            if not batch:
                continue
            try:
                await self._keep(batch)
            except DicodeError as error:
                log.warning(
                    "log lines could not be stored",
                    extra={"run_id": self._run_id, "lines": len(batch), "code": error.code.value},
                )
            self._bus.publish(LogAppended(self._run_id, tuple(batch)))

    async def _keep(self, batch: list[LogLine]) -> None:
        await self._store.append_logs(self._run_id, batch)
        room = self._room.take(batch)
        if room is not None:
            await self._store.trim_logs(self._run_id, after=room.after, before=room.before)

    def _depart(self) -> list[LogLine]:
        batch, self._pending, self._pending_size = self._pending, [], 0
        if self._untaken:
            text = f"[dicode] {self._untaken:,} log lines were left out here: they came too fast"
            batch.append(LogLine(self._seq, batch[-1].ts_ms, Level.WARN, text))
            self._untaken = 0
        return batch

    def _add(self, ts_ms: int, level: Level, message: str) -> None:
        if level is Level.SECURITY and len(self._blocked) < 2 * _MOST_BLOCKED:
            self._blocked.append(message)
        self._seq += 1
        if self._pending_size > self._most_pending:
            self._untaken += 1
            return
        self._pending.append(LogLine(self._seq, ts_ms, level, message))
        self._pending_size += len(message) + _LINE_OVERHEAD


class _Live:
    """What may end a run from outside while it is on."""

    def __init__(self) -> None:
        self.stop_reason: Reason | None = None
        self.observed: Observed | None = None
        """What its process used, once that has ended."""
        self._wanted = asyncio.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the run, and not only its process, is to end."""
        return self.stop_reason in (Reason.CANCELLED, Reason.REPLACED)

    def stop(self, reason: Reason) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
        self._wanted.set()

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Give what ``work`` comes to; None when a stop was wanted first, and it is cancelled."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._wanted.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            doing.cancel()
            stopping.cancel()
            await asyncio.wait({doing, stopping})
        return None if doing.cancelled() else doing.result()

    async def watch(self, process: Process, session: Session) -> Exit:
        """Wait for the process, ending its tree when a stop is wanted or it asked and stays."""
        async with asyncio.TaskGroup() as group:
            stopper = group.create_task(self._stop_when_wanted(process))
            closer = group.create_task(_stop_when_asked(process, session))
            exit = await process.wait()
            stopper.cancel()
            closer.cancel()
        return exit

    async def _stop_when_wanted(self, process: Process) -> None:
        await self._wanted.wait()
        await process.stop()


async def _stop_when_asked(process: Process, session: Session) -> None:
    """End a process that goes on although it asked: a script may have swallowed the signal."""
    await session.asked()
    await asyncio.sleep(_UNWIND_S)
    await process.stop()


@dataclass(frozen=True, slots=True)
class _Pause:
    """The end of a process that asked; its run is to wait for the answer."""

    draft: Draft
    cpu_ms: int | None


class Runner:
    """Executes runs. ``run`` is its loop; cancel it only after ``drained``."""

    def __init__(
        self,
        *,
        queue: Queue,
        dispatcher: Dispatcher,
        store: Store,
        runtimes: Mapping[str, Runtime],
        executor: Executor,
        sessions: Sessions,
        environment: Resolver,
        bus: EventBus,
        clock: Clock,
        scratch: Path,
        instance_id: str,
        log_limits: LogLimits,
        accesses: AccessBook,
    ) -> None:
        self._accesses = accesses
        self._queue = queue
        self._dispatcher = dispatcher
        self._store = store
        self._runtimes = runtimes
        self._executor = executor
        self._sessions = sessions
        self._environment = environment
        self._bus = bus
        self._clock = clock
        self._scratch = scratch
        self._instance_id = instance_id
        self._log_limits = log_limits
        self._on: dict[int, Task | None] = {}
        """By start, not by run: one that was answered may start before its last start is over."""
        self._starts = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active(self) -> int:
        """How many runs are on."""
        return len(self._on)

    def tasks(self) -> list[Task]:
        """Give the versions of tasks that runs are on with."""
        return [task for task in self._on.values() if task is not None]

    async def run(self) -> None:
        """Take runs from the dispatcher until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                run_id = await self._dispatcher.next()
                self._starts += 1
                self._on[self._starts] = None
                self._idle.clear()
                group.create_task(self._guarded(run_id, self._starts), name=f"run {run_id}")

    async def drained(self) -> None:
        """Wait until no run is on."""
        await self._idle.wait()

    async def _guarded(self, run_id: str, start: int) -> None:
        """Execute one run; whatever goes wrong ends that run and nothing else."""
        try:
            await self._execute(run_id, start)
        except DicodeError as error:
            if error.code is not Code.CONFLICT:
                log.error("a run could not be ended: %s", error.message, extra={"run_id": run_id})
            self._dispatcher.release(run_id)
        except Exception:
            log.exception("a run could not be ended", extra={"run_id": run_id})
            self._dispatcher.release(run_id)
        finally:
            self._on.pop(start, None)
            if not self._on:
                self._idle.set()

    async def _execute(self, run_id: str, start: int) -> None:
        live = _Live()
        # Before the claim, so that no cancel falls between the two.
        self._queue.on_stop(run_id, live.stop)
        try:
            claim = await self._queue.claim(run_id)
            if claim is None:
                return
            self._on[start] = claim.task
            outcome = await self._logged(claim, live)
        finally:
            self._queue.on_stop(run_id, None)
        if isinstance(outcome, _Pause):
            await self._suspend(claim, outcome, live)
            await self._note_used(claim, live, ok=True)
            return
        await self._queue.finish(claim.run, outcome)
        await self._note_used(claim, live, ok=outcome.status is RunStatus.SUCCESS)
        # Nobody waits for this; what a crash leaves of it the next start removes.
        await asyncio.to_thread(shutil.rmtree, self._scratch / run_id, ignore_errors=True)

    async def _note_used(self, claim: Claim, live: _Live, *, ok: bool) -> None:
        """Keep what the run used; the runs of tests are others'."""
        if live.observed is None or claim.run.trigger is Trigger.TEST:
            return
        seen = live.observed.as_run(claim.run.id, self._clock.now_ms(), ok=ok)
        try:
            await self._accesses.note(claim.task.id, seen)
        except DicodeError as error:
            log.warning("what a run used could not be noted: %s", error.message)

    async def _suspend(self, claim: Claim, pause: _Pause, live: _Live) -> None:
        """Let the run wait; what it leaves is gone before, since an answer starts it at once."""
        run_id = claim.run.id
        await asyncio.to_thread(shutil.rmtree, self._scratch / run_id, ignore_errors=True)
        await self._store.flush_logs(run_id)
        if live.cancelled:
            now = self._clock.now_ms()
            outcome = Outcome(RunStatus.CANCELLED, now, live.stop_reason, cpu_ms=pause.cpu_ms)
            await self._queue.finish(claim.run, outcome)
        else:
            await self._queue.suspend(claim.run, pause.draft, cpu_ms=pause.cpu_ms)

    async def _logged(self, claim: Claim, live: _Live) -> Outcome | _Pause:
        """Carry the run out while its log is stored; a fault of ours is an outcome too."""
        run_id = claim.run.id
        try:
            last = await self._last_line(claim.run) if claim.resumed else 0
            run_log = RunLog(run_id, self._store, self._bus, self._log_limits, last)
            if claim.resumed:
                await self._note_resumed(claim, run_log)
            async with asyncio.TaskGroup() as group:
                group.create_task(run_log.pump())
                try:
                    return await self._outcome(claim, live, run_log)
                finally:
                    run_log.close()
        except Exception:
            log.exception("a run met a fault of the server", extra={"run_id": claim.run.id})
            return Outcome(
                RunStatus.FAILURE, self._clock.now_ms(), reason=Reason.INTERNAL, error=_FAULT
            )

    async def _last_line(self, run: Run) -> int:
        """Give the seq after which a run that goes on writes its log."""
        try:
            page = await self._store.read_logs(run.id, LogQuery(tail=1))
        except DicodeError:
            # Beyond any that earlier starts may have used.
            return run.fence * 1_000_000_000
        return page.lines[-1].seq if page.lines else 0

    async def _note_resumed(self, claim: Claim, run_log: RunLog) -> None:
        """Say in the log why the run starts again, and that its task is another one by now."""
        now = self._clock.now_ms()
        with suppress(DicodeError):
            asked = await self._store.questions(claim.run.id)
            run_log.write(now, Level.INFO, resume_line(asked[-1]))
        if claim.began_as and claim.began_as != claim.task.digest:
            run_log.write(
                now,
                Level.WARN,
                f"[dicode] the task was changed while the run waited: it goes on with version"
                f" {claim.task.digest[:12]} (it began with {claim.began_as[:12]})",
            )

    async def _outcome(self, claim: Claim, live: _Live, run_log: RunLog) -> Outcome | _Pause:
        scratch = self._scratch / claim.run.id
        try:
            scratch.mkdir(mode=0o700, parents=True)
            resolved = await live.unless_stopped(self._environment.resolve(claim.run, claim.task))
            if resolved is None:
                gone = Exit(None, None, stopped=True)
                return decide(
                    gone, Report(), now_ms=self._clock.now_ms(), stop_reason=live.stop_reason
                )
            launch = self._prepare(claim, scratch, resolved)
            if resolved.shown:
                run_log.write(self._clock.now_ms(), Level.WARN, too_short(resolved.shown))
            exit, report = await self._converse(claim, launch, live, run_log)
        except DicodeError as error:
            return self._not_started(error)
        except OSError as error:
            return self._not_started(
                DicodeError(Code.INTERNAL, f"the process could not be started: {error.strerror}")
            )
        self._note_losses(exit, run_log)
        runtime = self._runtimes[claim.task.spec.runtime]
        live.observed = await observed(claim.task, runtime, launch, exit, report)
        if isinstance(runtime, Observing):
            # What such a process noted by itself it did not tell of while it was on.
            told = [a for a in live.observed.refused if a.kind in _TOLD_LATE]
            run_log.write_refused(self._clock.now_ms(), told)
        if report.question is not None and not live.cancelled:
            run_log.write(self._clock.now_ms(), Level.INFO, pause_line(report.question))
            return _Pause(report.question, cpu_ms_of(exit))
        if report.question is not None:
            # Cancelled while it unwound: there is nothing it could still have ended with.
            exit = replace(exit, stopped=True)
        outcome = decide(
            exit,
            report,
            now_ms=self._clock.now_ms(),
            stop_reason=live.stop_reason,
            timeout_s=launch.timeout_s,
            output_schema=claim.task.spec.output_schema,
            explained=runtime.explain(exit, claim.task),
            refused=live.observed.refused,
        )
        # After the check against output_schema, which is of what the task returned.
        return without_secrets(outcome, launch.hide)

    def _prepare(self, claim: Claim, scratch: Path, resolved: Resolved) -> Launch:
        task = claim.task
        runtime = self._runtimes.get(task.spec.runtime)
        if runtime is None:
            raise DicodeError(
                Code.RUNTIME_UNAVAILABLE,
                f"this server has no runtime '{task.spec.runtime}'",
                hint=f"runtimes here: {', '.join(sorted(self._runtimes))}",
            )
        health = runtime.health()
        if not health.ok:
            raise DicodeError(Code.RUNTIME_UNAVAILABLE, health.message)
        launch = runtime.prepare(
            LaunchContext(
                run=claim.run,
                task=task,
                payload=claim.payload,
                env=resolved.env,
                scratch=scratch,
                instance_id=self._instance_id,
            )
        )
        return replace(launch, hide=resolved.hide)

    async def _converse(
        self, claim: Claim, launch: Launch, live: _Live, run_log: RunLog
    ) -> tuple[Exit, Report]:
        where = launch.ipc_path if launch.ipc == "path" else None
        opened = self._sessions.open(
            claim.run, claim.task, claim.payload, at=where, hide=launch.hide
        )
        async with opened as session:
            process = await self._executor.start(launch, run_log.sink, session.child_fd)
            try:
                exit = await live.watch(process, session)
            except asyncio.CancelledError:
                await process.stop()
                raise
            try:
                async with asyncio.timeout(_REPORT_WAIT_S):
                    return exit, await session.report()
            except TimeoutError:
                return exit, Report()

    def _not_started(self, error: DicodeError) -> Outcome:
        reason = _REASONS.get(error.code, Reason.START_FAILED)
        return Outcome(
            RunStatus.FAILURE,
            self._clock.now_ms(),
            reason=reason,
            # Which kind of failure a provider's was, where it was one.
            error=RunError(error.data.get("reason", reason), error.message, error.hint),
        )

    def _note_losses(self, exit: Exit, run_log: RunLog) -> None:
        now = self._clock.now_ms()
        if exit.dropped_bytes:
            run_log.write(
                now,
                Level.WARN,
                f"[dicode] {exit.dropped_bytes:,} bytes of output are not in this log: lines are "
                "cut at 64 KiB, and beyond max_log_lines or max_log_bytes only the newest stay",
            )
        if exit.strays:
            run_log.write(
                now,
                Level.WARN,
                f"[dicode] {exit.strays} process(es) outlived the script and were ended",
            )

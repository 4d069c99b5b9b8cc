"""Keeps exactly one run of each daemon task on, through ends, changes and pauses.

One supervisor for each daemon; what it does is decided in ``supervision``. A run of a daemon takes
no slot, and goes through the queue like any other.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import STORAGE_TROUBLE, Code, DicodeError
from dicode_mcp.events import EventBus, Subscription, TasksChanged
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Registry
from dicode_mcp.runs.model import Reason, Run, RunRequest, RunStatus, Trigger
from dicode_mcp.triggers.supervision import Action, Decision, End, State, Wanted, decide

log = logging.getLogger("dicode.daemons")

OWNER = "daemon"

_STORE_PAUSE_S = 1.0


@dataclass(slots=True)
class _Daemon:
    """What the supervisor of one daemon works with."""

    task_id: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    run_id: str | None = None
    end: End | None = None
    shown: str | None = None


class DaemonTrigger:
    """Supervises daemon tasks while ``run`` runs.

    Start it when the queue has recovered. Before the server waits for its runs to end, call
    ``close``; cancelling ``run`` alone leaves the daemons on.
    """

    def __init__(self, queue: Queue, registry: Registry, bus: EventBus, clock: Clock) -> None:
        self._queue = queue
        self._registry = registry
        self._bus = bus
        self._clock = clock
        self._daemons: dict[str, _Daemon] = {}
        self._closing = False

    def close(self) -> None:
        """End every daemon with the reason ``shutdown``, and start none again."""
        self._closing = True
        for daemon in self._daemons.values():
            daemon.wake.set()

    async def run(self) -> None:
        """Supervise until cancelled."""
        with self._bus.subscribe(kinds=(TasksChanged,)) as changes:
            async with asyncio.TaskGroup() as group:
                self._look([entry.id for entry in self._registry.entries()], group)
                await self._follow(changes, group)

    async def _follow(self, changes: Subscription, group: asyncio.TaskGroup) -> None:
        lost = 0
        async for event in changes:
            if isinstance(event, TasksChanged):
                self._look(event.task_ids, group)
            if changes.lost != lost:
                lost = changes.lost
                everyone = {entry.id for entry in self._registry.entries()} | set(self._daemons)
                self._look(sorted(everyone), group)

    def _look(self, task_ids: list[str] | tuple[str, ...], group: asyncio.TaskGroup) -> None:
        for task_id in task_ids:
            daemon = self._daemons.get(task_id)
            if daemon is not None:
                daemon.wake.set()
            elif self._wanted(task_id) is not None and not self._closing:
                self._daemons[task_id] = daemon = _Daemon(task_id)
                group.create_task(self._supervise(daemon), name=f"daemon {task_id}")

    def _wanted(self, task_id: str) -> Wanted | None:
        entry = self._registry.get(task_id)
        if entry is None or entry.task is None or not entry.task.spec.trigger.daemon:
            return None
        # A daemon that is on goes on when its budget is spent; one that ended waits for the day.
        held = [ConditionType.PAUSED]
        if self._daemons.get(task_id, _Daemon(task_id)).run_id is None:
            held.append(ConditionType.BUDGET_REACHED)
        if any(c.status for c in entry.conditions if c.type in held):
            return None
        return Wanted(entry.task.digest, entry.task.spec.trigger.restart)

    async def _supervise(self, daemon: _Daemon) -> None:
        state = State()
        async with asyncio.TaskGroup() as group:
            while True:
                daemon.wake.clear()
                end, daemon.end = daemon.end, None
                wanted = self._wanted(daemon.task_id)
                now = self._clock.monotonic()
                decision = decide(state, wanted, end, now, closing=self._closing)
                state = decision.state
                self._show(daemon, decision)
                if decision.action is Action.LEAVE:
                    # Nothing is awaited between the decision and this: no change can be missed.
                    del self._daemons[daemon.task_id]
                    return
                await self._act(daemon, decision, group)
                await self._clock.wait(daemon.wake, decision.wait_s)

    async def _act(self, daemon: _Daemon, decision: Decision, group: asyncio.TaskGroup) -> None:
        if decision.action is Action.START:
            await self._start(daemon, group)
        elif decision.action is Action.STOP and daemon.run_id is not None:
            group.create_task(self._stop(daemon.run_id))

    async def _start(self, daemon: _Daemon, group: asyncio.TaskGroup) -> None:
        request = RunRequest(task_id=daemon.task_id, trigger=Trigger.DAEMON, actor="daemon")
        try:
            run = await self._queue.submit(request)
        except DicodeError as error:
            log.warning(
                "a daemon could not be started",
                extra={"task_id": daemon.task_id, "code": error.code.value},
            )
            self._ended(daemon, End(RunStatus.FAILURE, error.message))
            return
        except Exception as error:
            log.exception("a daemon could not be started", extra={"task_id": daemon.task_id})
            self._ended(daemon, End(RunStatus.FAILURE, f"internal error: {type(error).__name__}"))
            return
        daemon.run_id = run.id
        group.create_task(self._watch(daemon, run.id))

    async def _watch(self, daemon: _Daemon, run_id: str) -> None:
        """Wait for the end of a run and tell it."""
        while True:
            try:
                run = await self._queue.wait(run_id, None)
            except DicodeError as error:
                if error.code is Code.RUN_NOT_FOUND:
                    self._ended(daemon, End(RunStatus.LOST, error.message))
                    return
                await self._clock.wait(asyncio.Event(), _STORE_PAUSE_S)
                continue
            self._ended(daemon, _end_of(run))
            return

    def _ended(self, daemon: _Daemon, end: End) -> None:
        daemon.run_id = None
        daemon.end = end
        daemon.wake.set()

    async def _stop(self, run_id: str) -> None:
        """Ask for the end of a run, until the store has understood."""
        reason = Reason.SHUTDOWN if self._closing else Reason.REPLACED
        while True:
            try:
                await self._queue.cancel(run_id, reason)
                return
            except DicodeError as error:
                if error.code not in STORAGE_TROUBLE:
                    return
            await self._clock.wait(asyncio.Event(), _STORE_PAUSE_S)

    def _show(self, daemon: _Daemon, decision: Decision) -> None:
        if daemon.shown == decision.looping:
            return
        daemon.shown = decision.looping
        conditions: list[Condition] = []
        if decision.looping is not None:
            conditions.append(
                Condition(ConditionType.CRASH_LOOPING, True, "CrashLooping", decision.looping)
            )
        self._registry.set_conditions(daemon.task_id, OWNER, conditions)


def _end_of(run: Run) -> End:
    return End(run.status, run.error.message if run.error else "")

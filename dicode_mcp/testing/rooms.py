"""The rooms below the loops, wired for a test: real ones, on a store and a clock of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from dicode_mcp.budgets import Budgets
from dicode_mcp.chains import Chains
from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus
from dicode_mcp.limits import limit_of
from dicode_mcp.protocols import RunQuery, Store
from dicode_mcp.queue import Claim, Queue
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.model import Outcome, Reason, Run, RunError, RunStatus
from dicode_mcp.spec.model import FailureChain, RunInputsSpec, Task, TaskSpec
from dicode_mcp.telling import Notices, NotifySettings
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore

SOURCE = "tests"


def make_task(task_id: str, digest: str = "0", /, folder: Path | None = None, **spec: Any) -> Task:
    """Make a Python task from manifest fields."""
    data = {"name": task_id, "runtime": "python", "trigger": {"manual": True}, **spec}
    place = folder or Path("/nowhere") / task_id
    return Task(task_id, TaskSpec.read(data), place, place / "task.py", digest * 64, SOURCE)


class Rooms:
    """Registry, queue and dispatcher. A second ``Rooms`` on the same store is a restart."""

    def __init__(
        self,
        store: Store | None = None,
        clock: FakeClock | None = None,
        *,
        slots: int = 1_000_000,
        on_failure_chain: FailureChain | None = None,
        notify: NotifySettings | None = None,
        zone: ZoneInfo | None = None,
        random: Random | None = None,
        run_inputs: RunInputsSpec | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.store: Store = store or MemoryStore()
        self.bus = EventBus()
        self.registry = Registry(self.bus, self.clock, [SOURCE])
        self.registry.started()
        self.chains = Chains(self.registry)
        self.notices = Notices(self.registry, notify or NotifySettings())
        self.dispatcher = LocalDispatcher(slots, self.clock, limit_of(self.registry))
        self.budgets = Budgets(self.registry, self.store, self.clock, zone or ZoneInfo("UTC"))
        self.queue = Queue(
            self.store,
            self.registry,
            self.chains,
            self.dispatcher,
            self.bus,
            self.clock,
            on_failure_chain,
            self.notices,
            random=random,
            run_inputs=run_inputs,
            budgets=self.budgets,
        )
        self.dispatcher.open()

    def put(self, *tasks: Task) -> None:
        """Put tasks in force."""
        ready = (Condition(ConditionType.READY, True, "Loaded"),)
        entries = [Entry(t.id, SOURCE, t.folder, t, ready) for t in tasks]
        self.registry.apply(SOURCE, put=entries)

    def put_broken(self, task_id: str) -> None:
        """Declare a task that never loaded."""
        broken = (Condition(ConditionType.READY, False, "Invalid"),)
        self.registry.apply(SOURCE, put=[Entry(task_id, SOURCE, Path("/nowhere"), None, broken)])

    def remove(self, *task_ids: str) -> None:
        """Take tasks away."""
        self.registry.apply(SOURCE, remove=task_ids)

    def pause(self, task_id: str, on: bool = True) -> None:
        """Pause a task, or end its pause."""
        paused = Condition(ConditionType.PAUSED, True, "Paused")
        self.registry.set_conditions(task_id, "pause", [paused] if on else [])

    def condition(self, task_id: str, kind: ConditionType) -> Condition | None:
        """Give a condition of a task, as a reader sees it."""
        entry = self.registry.get(task_id)
        return find(entry.conditions, kind) if entry else None

    async def runs(self, task_id: str | None = None) -> list[Run]:
        """Give the runs there are (at most 1,000), oldest first."""
        page = await self.store.list_runs(RunQuery(task_id=task_id, limit=1000))
        return list(reversed(page.items))


End = RunStatus | tuple[RunStatus, str | None]
"""A status, or a status and the JSON text of a return value."""


class InstantRunner:
    """Ends each run as ``ends`` says for its task, without a process.

    A task that is in ``held`` runs until it is stopped or ``release`` lets it end.
    """

    def __init__(
        self, rooms: Rooms, ends: Mapping[str, End] | Callable[[Run], End] | None = None
    ) -> None:
        self._rooms = rooms
        self._ends = ends or {}
        self._releases: dict[str, asyncio.Future[Outcome]] = {}
        self.held: set[str] = set()
        self.on: dict[str, str] = {}
        """The newest run that is on, by held task."""
        self.holding = 0
        """How many runs are held now."""
        self.busy = 0
        """How many runs it is at work on, until what follows from them has been handed on."""
        self.most_on: dict[str, int] = {}
        self._count: dict[str, int] = {}

    async def run(self) -> None:
        """Take runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                run_id = await self._rooms.dispatcher.next()
                self.busy += 1
                group.create_task(self._execute(run_id)).add_done_callback(self._done)

    def _done(self, _: asyncio.Task[None]) -> None:
        self.busy -= 1

    def release(self, task_id: str, status: RunStatus = RunStatus.SUCCESS) -> None:
        """Let the held run of a task end."""
        future = self._releases[task_id]
        if not future.done():
            future.set_result(self.outcome(status, None))

    async def _execute(self, run_id: str) -> None:
        try:
            claim = await self._rooms.queue.claim(run_id)
        except DicodeError as error:
            self._rooms.dispatcher.release(run_id)
            if error.code is not Code.CONFLICT:
                raise
            return
        if claim is None:
            return
        task_id = claim.run.task_id
        self._count[task_id] = self._count.get(task_id, 0) + 1
        self.most_on[task_id] = max(self.most_on.get(task_id, 0), self._count[task_id])
        outcome = await self._hold(claim) if task_id in self.held else self._end(claim.run)
        self._count[task_id] -= 1
        await self._rooms.queue.finish(claim.run, outcome)

    async def _hold(self, claim: Claim) -> Outcome:
        run = claim.run
        future = asyncio.get_running_loop().create_future()
        self._releases[run.task_id] = future
        self.on[run.task_id] = run.id
        self.holding += 1

        def stop(reason: Reason) -> None:
            if not future.done():
                future.set_result(self.outcome(RunStatus.CANCELLED, None, reason))

        self._rooms.queue.on_stop(run.id, stop)
        try:
            return await future
        finally:
            self._rooms.queue.on_stop(run.id, None)
            self.on.pop(run.task_id, None)
            self.holding -= 1

    def _end(self, run: Run) -> Outcome:
        if callable(self._ends):
            end = self._ends(run)
        else:
            end = self._ends.get(run.task_id, RunStatus.SUCCESS)
        status, value = end if isinstance(end, tuple) else (end, None)
        return self.outcome(status, value)

    def outcome(
        self, status: RunStatus, value: str | None = None, reason: Reason | None = None
    ) -> Outcome:
        """Make an end of the kind this runner gives."""
        error = None
        if status is not RunStatus.SUCCESS:
            error = RunError(reason or "script_error", f"ended as {status.value}")
        now = self._rooms.clock.now_ms()
        return Outcome(status, now, reason=reason, error=error, return_value=value)

"""The loop that makes tasks ready for their first run: dependencies fetched, types checked.

It follows the registry and works beside it, one task after the other: no source waits for a
package registry. What the work is, only the runtime knows; what came of it is a condition.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition
from dicode_mcp.errors import DicodeError
from dicode_mcp.events import EventBus, TasksChanged
from dicode_mcp.executor.helpers import run_helper
from dicode_mcp.protocols import (
    Executor,
    Helped,
    HelperContext,
    Launch,
    Prepared,
    Preparing,
    Runtime,
    Tidying,
)
from dicode_mcp.registry import Registry
from dicode_mcp.spec.model import Task

log = logging.getLogger("dicode.preparer")

OWNER = "preparer"
"""The room in whose name conditions are set."""
FIRST_RETRY_S = 30.0
LONGEST_RETRY_S = 3600.0
TIDY_S = 3600.0


@dataclass(frozen=True, slots=True)
class _State:
    """How the preparation of one version of a task stands. ``due`` is set between two tries."""

    digest: str
    failures: int = 0
    due: float | None = None


class Preparer:
    """Prepares the tasks of runtimes that are ``Preparing``. ``run`` is its loop."""

    def __init__(
        self,
        *,
        registry: Registry,
        runtimes: Mapping[str, Runtime],
        executor: Executor,
        bus: EventBus,
        clock: Clock,
        scratch: Path,
        instance_id: str,
    ) -> None:
        self._registry = registry
        self._runtimes = {n: r for n, r in runtimes.items() if isinstance(r, Preparing)}
        self._tidying = {n: r for n, r in runtimes.items() if isinstance(r, Tidying)}
        self._executor = executor
        self._bus = bus
        self._clock = clock
        self._scratch = scratch
        self._instance_id = instance_id
        self._states: dict[str, _State] = {}
        self._waiting: dict[str, None] = {}
        """Ids in order; a task that changes twice is prepared once, in its last version."""
        self._wake = asyncio.Event()
        self._numbers = count(1)

    async def run(self) -> None:
        """Prepare until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._work())
            group.create_task(self._tidy())

    async def _tidy(self) -> None:
        never = asyncio.Event()
        while not await self._clock.wait(never, TIDY_S):
            tasks = [entry.task for entry in self._registry.entries() if entry.task is not None]
            for name, runtime in self._tidying.items():
                own = [task for task in tasks if task.spec.runtime == name]
                try:
                    await asyncio.to_thread(runtime.tidy, own, self._clock.now_ms())
                except OSError as error:
                    log.warning("a runtime could not be tidied", extra={"why": str(error)})

    async def _follow(self) -> None:
        lost = 0
        with self._bus.subscribe(kinds=(TasksChanged,)) as told:
            self._look_at_all()
            while True:
                event = await told.get()
                if told.lost != lost:
                    lost = told.lost
                    self._look_at_all()
                elif isinstance(event, TasksChanged):
                    for task_id in event.task_ids:
                        self._look(task_id)

    def _look_at_all(self) -> None:
        for task_id in {*self._states, *(entry.id for entry in self._registry.entries())}:
            self._look(task_id)

    def _look(self, task_id: str) -> None:
        """Put a task in line when another version of it is in force than was seen last."""
        task = self._task(task_id)
        state = self._states.get(task_id)
        if task is None:
            if state is not None:
                del self._states[task_id]
                self._waiting.pop(task_id, None)
                self._registry.set_conditions(task_id, OWNER, ())
        elif state is None or state.digest != task.digest:
            self._states[task_id] = _State(task.digest)
            self._waiting[task_id] = None
            self._wake.set()

    def _task(self, task_id: str) -> Task | None:
        entry = self._registry.get(task_id)
        task = entry.task if entry else None
        return task if task is not None and task.spec.runtime in self._runtimes else None

    async def _work(self) -> None:
        while True:
            for task_id in self._due():
                self._waiting[task_id] = None
            if self._waiting:
                task_id = next(iter(self._waiting))
                del self._waiting[task_id]
                await self._attend(task_id)
            else:
                await self._pause()

    def _due(self) -> Sequence[str]:
        now = self._clock.monotonic()
        return [i for i, s in self._states.items() if s.due is not None and s.due <= now]

    async def _pause(self) -> None:
        dues = [state.due for state in self._states.values() if state.due is not None]
        patience = max(0.0, min(dues) - self._clock.monotonic()) if dues else None
        try:
            async with asyncio.timeout(patience):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _attend(self, task_id: str) -> None:
        """Prepare the version in force and show what came of it, unless it changed meanwhile."""
        task, state = self._task(task_id), self._states.get(task_id)
        if task is None or state is None or task.digest != state.digest:
            return
        self._states[task_id] = replace(state, due=None)
        prepared = await self._prepare(self._runtimes[task.spec.runtime], task)
        state = self._states.get(task_id)
        if state is None or state.digest != task.digest:
            return
        if prepared.again:
            wait = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2**state.failures)
            due = self._clock.monotonic() + wait
            self._states[task_id] = replace(state, failures=state.failures + 1, due=due)
        self._show(task_id, prepared)

    async def _prepare(self, runtime: Preparing, task: Task) -> Prepared:
        shown: tuple[Condition, ...] = ()
        try:
            known = await asyncio.to_thread(runtime.prepared, task)
            if known is not None:
                return known
            shown = await asyncio.to_thread(runtime.awaiting, task)
            self._registry.set_conditions(task.id, OWNER, shown)
            return await self._helped(runtime, task)
        except (DicodeError, OSError) as error:
            log.warning("a task could not be prepared", extra={"task": task.id, "why": str(error)})
        except Exception:
            # A bug in one runtime must not end the server.
            log.exception("a task could not be prepared", extra={"task": task.id})
        return Prepared(shown, again=True)

    async def _helped(self, runtime: Preparing, task: Task) -> Prepared:
        mark = f"prepare-{next(self._numbers)}"
        scratch = self._scratch / mark
        scratch.mkdir(mode=0o700, parents=True)
        try:
            context = HelperContext(scratch, mark, self._instance_id)
            return await runtime.make_ready(task, context, self._help)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _help(self, launch: Launch) -> Helped:
        return await run_helper(self._executor, launch)

    def _show(self, task_id: str, prepared: Prepared) -> None:
        for condition in prepared.conditions:
            first = condition.message.partition("\n")[0]
            log.warning("task/%s %s: %s", task_id, condition.type.value, first)
        self._registry.set_conditions(task_id, OWNER, prepared.conditions)

"""How long runs stay: the loop that lets go of old ones, a few at a time, and the same on demand.

What is kept of them by task and day stays (``run_days``). It decides by the tasks in force and the
server's defaults. Deleting is the store's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import PruneQuery, RunsSize, Store
from dicode_mcp.registry import Registry
from dicode_mcp.spec.model import RunInputsSpec, TaskSpec

log = logging.getLogger("dicode.retention")

FIRST_PASS_S = 60.0
"""How long after the start the first pass begins: what a start has to do goes first."""
PASS_EVERY_S = 600.0
PAGE = 200
"""How many runs are looked at at once; asking for them reads only indexes and narrow rows."""
FEWEST, MOST = 10, 200
"""How many runs one transaction deletes."""


@dataclass(slots=True)
class Pace:
    """How hard to work: others wait for a transaction that lasts, and not while it rests.

    ``transaction_s`` is about how long one may last; ``rest`` how long to rest after it, in
    durations of it; ``runs`` how many runs it takes, which is learned.
    """

    transaction_s: float
    rest: float
    runs: int = 50

    def took(self, seconds: float) -> None:
        """Learn from one transaction."""
        if seconds > self.transaction_s:
            self.runs = max(FEWEST, self.runs // 2)
        elif seconds < self.transaction_s / 2:
            self.runs = min(MOST, self.runs * 5 // 4 + 1)


def gentle() -> Pace:
    """Give the pace of the loop, which has time."""
    return Pace(0.015, 3.0)


def brisk() -> Pace:
    """Give the pace for somebody who waits."""
    return Pace(0.03, 0.3)


_TASKS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """How long the runs of a task stay; None sets no bound. Inputs stay no longer than the run."""

    age_s: float | None = None
    runs: int | None = None
    inputs_s: float | None = None


KEEP_ALL = Rule()


def rule_of(spec: TaskSpec, default: Rule) -> Rule:
    """Give the rule of a task: what it says itself, else the server's."""
    own, inputs = spec.retention, spec.run_inputs
    return Rule(
        own.age if own and own.age is not None else default.age_s,
        own.runs if own and own.runs is not None else default.runs,
        default.inputs_s if inputs is None else inputs_age(inputs),
    )


def inputs_age(inputs: RunInputsSpec | None) -> float | None:
    """Give how long inputs stay after a run's end; 0 when they are not to be kept at all."""
    if inputs is None:
        return None
    return inputs.retention if inputs.enabled else 0.0


NOTHING = RunsSize()


@dataclass(frozen=True, slots=True)
class Gone:
    """What a step let go of, or would: runs of one task, or inputs, or keys."""

    task_id: str = ""
    size: RunsSize = NOTHING
    inputs: int = 0
    keys: int = 0


class Retention:
    """Lets go of what is not to be kept. ``run`` is its loop."""

    def __init__(self, store: Store, registry: Registry, clock: Clock, default: Rule) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._default = default

    async def run(self) -> None:
        """Make a pass now and then, until cancelled. A store in trouble is left for the next."""
        pause = FIRST_PASS_S
        while True:
            await self._clock.wait(asyncio.Event(), pause)
            pause = PASS_EVERY_S
            try:
                await self.look()
            except DicodeError as error:
                log.warning("old runs could not be let go of: %s", error.message)

    async def look(self) -> None:
        """Make one pass: runs by age and number, inputs, expired idempotency keys."""
        runs = inputs = 0
        async with aclosing(self.steps(gentle())) as steps:
            async for step in steps:
                runs += step.size.runs
                inputs += step.inputs
        if self._all_is_read():
            known = {entry.id for entry in self._registry.entries()}
            await self._store.forget_accesses(keep=known)
        if runs or inputs:
            log.info("let go of %d old runs", runs, extra={"runs": runs, "inputs": inputs})

    def rule(self, task_id: str) -> Rule:
        """Give the rule of a task.

        While it cannot be told what a task says, nothing of it goes. The runs of one that is gone
        go by age alone: it may be back, and say that more of them are to stay.
        """
        entry = self._registry.get(task_id)
        if entry is not None:
            return rule_of(entry.task.spec, self._default) if entry.task else KEEP_ALL
        return replace(self._default, runs=None) if self._all_is_read() else KEEP_ALL

    def _all_is_read(self) -> bool:
        """Tell whether every source has shown its tasks, so that one that is not there is gone."""
        ready = (find(s.conditions, ConditionType.READY) for s in self._registry.source_states())
        return not self._registry.starting and all(c is None or c.status for c in ready)

    async def steps(self, pace: Pace) -> AsyncGenerator[Gone]:
        """Let go of all that is not to be kept, telling each step."""
        async for step in self.old_runs(pace):
            yield step
        async for step in self._old_inputs(pace.rest):
            yield step
        while keys := await self._store.drop_expired_keys(now_ms=self._clock.now_ms()):
            yield Gone(keys=keys)

    async def old_runs(
        self,
        pace: Pace,
        *,
        task_id: str | None = None,
        older_than_s: float | None = None,
        only: Callable[[str], bool] = lambda _: True,
        dry_run: bool = False,
        measure: bool = False,
    ) -> AsyncGenerator[Gone]:
        """Let go of old runs of one task, or of all that ``only`` takes, telling each step.

        With ``older_than_s`` those that ended so long ago; without, what the rules say. A dry run
        lets go of nothing. Sizes are told when it is one, or with ``measure``.
        """
        async for task in self._tasks(task_id):
            if not only(task):
                continue
            query = self._query(task, older_than_s)
            while True:
                page = await self._store.prunable_runs(query)
                if dry_run:
                    yield Gone(task, await self._store.size_of_runs(page.items))
                else:
                    async for size in self._delete(page.items, pace, measure):
                        yield Gone(task, size)
                if page.next_cursor is None:
                    break
                query = replace(query, cursor=page.next_cursor)

    def _query(self, task_id: str, older_than_s: float | None) -> PruneQuery:
        now = self._clock.now_ms()
        if older_than_s is not None:
            return PruneQuery(task_id, now - round(older_than_s * 1000), None, PAGE)
        rule = self.rule(task_id)
        before = None if rule.age_s is None else now - round(rule.age_s * 1000)
        return PruneQuery(task_id, before, rule.runs, PAGE)

    async def _delete(
        self, run_ids: tuple[str, ...], pace: Pace, measure: bool
    ) -> AsyncGenerator[RunsSize]:
        left = run_ids
        while left:
            part, left = left[: pace.runs], left[pace.runs :]
            size = await self._store.size_of_runs(part) if measure else NOTHING
            began = self._clock.monotonic()
            deleted = await self._store.delete_runs(part)
            took = self._clock.monotonic() - began
            pace.took(took)
            yield replace(size, runs=deleted)
            await self._rest(took * pace.rest)

    async def _old_inputs(self, rest: float) -> AsyncGenerator[Gone]:
        async for task in self._tasks(None):
            keep_s = self.rule(task).inputs_s
            if keep_s is None:
                continue
            before = self._clock.now_ms() - round(keep_s * 1000) + 1
            cursor: str | None = None
            while True:
                page = await self._store.runs_with_input(
                    task, ended_before_ms=before, limit=PAGE, cursor=cursor
                )
                if page.items:
                    began = self._clock.monotonic()
                    yield Gone(task, inputs=await self._store.drop_inputs(page.items))
                    await self._rest((self._clock.monotonic() - began) * rest)
                cursor = page.next_cursor
                if cursor is None:
                    break

    async def _tasks(self, task_id: str | None) -> AsyncGenerator[str]:
        """Give the ids of tasks that have runs, or the one that is asked for."""
        if task_id is not None:
            yield task_id
            return
        after = ""
        while known := await self._store.tasks_with_runs(after=after, limit=_TASKS_AT_ONCE):
            for task in known:
                yield task
            after = known[-1]

    async def _rest(self, seconds: float) -> None:
        if seconds > 0:
            await self._clock.wait(asyncio.Event(), seconds)

"""Who may come in: holds the limits of tasks against the runs that are about to be stored.

The rules are in ``runs.limits``; which runs there are, the dispatcher knows. This keeps what
neither can: runs whose rows are being written, and which run waits for which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dicode_mcp.protocols import Dispatcher
from dicode_mcp.registry import Registry
from dicode_mcp.runs import limits
from dicode_mcp.runs.limits import Crowd, Group, Policy, group_of
from dicode_mcp.runs.model import Run, RunError, RunStatus, Trigger
from dicode_mcp.spec.model import ConcurrencySpec


def limit_of(registry: Registry) -> Callable[[Group], int | None]:
    """Give the limits of the tasks in force, for the dispatcher."""

    def limit(group: Group) -> int | None:
        return limits.limit_of(_spec(registry, group.task_id))

    return limit


@dataclass(slots=True, eq=False)
class _Wait:
    parent_id: str
    child_id: str


class Limits:
    """Decides on runs one after the other: nothing is awaited between a decision and its record."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._coming: dict[Group, dict[str, asyncio.Event]] = {}
        """Runs let in by ``skip`` whose rows are not yet written."""
        self._waits: set[_Wait] = set()

    def policy(self, run: Run) -> Policy:
        """Give what holds for a run."""
        return limits.policy_of(_spec(self._registry, run.task_id), run.trigger)

    async def clear(self, run: Run) -> None:
        """Wait until no row that is being written decides what becomes of ``run``.

        Such a row may yet turn out to be an earlier run, by its idempotency key.
        """
        while (event := self._in_doubt(run)) is not None:
            await event.wait()

    def overlap(self, run: Run) -> RunError | None:
        """Say why a run is skipped, or let it in."""
        policy = self.policy(run)
        if policy.overlap != "skip" or policy.limit is None:
            return None
        before = limits.overlapping(policy, self._with_coming(group_of(run)))
        return None if before is None else limits.overlap_error(run, before, policy.limit)

    @contextmanager
    def coming(self, run: Run) -> Generator[None]:
        """Count a run that was let in while its row is written."""
        if run.status is not RunStatus.QUEUED or self.policy(run).overlap != "skip":
            yield
            return
        group, event = group_of(run), asyncio.Event()
        self._coming.setdefault(group, {})[run.id] = event
        try:
            yield
        finally:
            del self._coming[group][run.id]
            if not self._coming[group]:
                del self._coming[group]
            event.set()

    def replaced(self, run: Run) -> Sequence[str]:
        """Give the runs that a stored one takes the place of, oldest first.

        Never the run that started it, nor one that waits for that: it waits for them instead.
        """
        policy = self.policy(run)
        if policy.overlap != "replace":
            return ()
        crowd = self._dispatcher.crowd(group_of(run))
        return limits.replaced(policy, crowd.everyone, self._lineage(run))

    @contextmanager
    def waiting(self, parent_id: str, child_id: str) -> Generator[Callable[[str], None]]:
        """Note that a run waits for another; what is given notes that it waits for a further one.

        Which is the next attempt of the same.
        """
        waits = _Wait(parent_id, child_id)
        self._waits.add(waits)

        def goes_on_to(run_id: str) -> None:
            waits.child_id = run_id

        try:
            yield goes_on_to
        finally:
            self._waits.discard(waits)

    def standstill(self, run_id: str) -> RunError | None:
        """Say that a queued run can never start, since its place waits for it; else None."""
        blocked = self._dispatcher.blocked(run_id)
        if blocked is None:
            return None
        if limits.stuck(run_id, self._children_of, self._dispatcher.blocked):
            return limits.deadlock_error(blocked)
        return None

    def awaited(self) -> list[str]:
        """Give the runs that another one waits for."""
        return sorted({wait.child_id for wait in self._waits})

    def in_the_way(self, run: Run) -> str | None:
        """Give the oldest run of a full group."""
        policy, crowd = self.policy(run), self._with_coming(group_of(run))
        present = (*crowd.on, *crowd.due)
        full = policy.limit is not None and len(present) >= policy.limit
        return present[0] if full else None

    def _children_of(self, run_id: str) -> list[str]:
        return [wait.child_id for wait in self._waits if wait.parent_id == run_id]

    def _in_doubt(self, run: Run) -> asyncio.Event | None:
        policy, group = self.policy(run), group_of(run)
        coming = self._coming.get(group)
        if coming is None or limits.overlapping(policy, self._with_coming(group)) is None:
            return None
        if limits.overlapping(policy, self._dispatcher.crowd(group)) is not None:
            return None
        return next(iter(coming.values()))

    def _with_coming(self, group: Group) -> Crowd:
        crowd = self._dispatcher.crowd(group)
        coming = [i for i in self._coming.get(group, ()) if i not in crowd.due + crowd.on]
        return Crowd(crowd.on, (*crowd.due, *coming), (*crowd.everyone, *coming))

    def _lineage(self, run: Run) -> set[str]:
        found: set[str] = set()
        ahead = [run.parent_run_id] if run.parent_run_id and run.trigger is Trigger.SDK else []
        while ahead:
            run_id = ahead.pop()
            if run_id not in found:
                found.add(run_id)
                ahead += [wait.parent_id for wait in self._waits if wait.child_id == run_id]
        return found


def _spec(registry: Registry, task_id: str) -> ConcurrencySpec | None:
    entry = registry.get(task_id)
    return entry.task.spec.concurrency if entry and entry.task else None

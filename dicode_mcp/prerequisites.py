"""Tasks that see to a missing value: started when a run cannot begin for want of it.

Such a task asks its user, or fetches a token, and sets the secret. Nobody waits for it, and a key
that goes on missing does not start it again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.errors import DicodeError
from dicode_mcp.registry import Registry
from dicode_mcp.runs.follow_ups import MAX_CHAIN_DEPTH, origin_of, passed_on
from dicode_mcp.runs.model import Run, RunRequest, Trigger
from dicode_mcp.spec.model import EnvEntry, Task

REST_S = 300.0
"""How long a key that is missing starts its task no second time."""
MAX_KNOWN = 10_000


class Starts(Protocol):
    """Starts runs."""

    async def submit(self, request: RunRequest) -> Run:
        """Commit a run."""
        ...

    async def wait(self, run_id: str, timeout_s: float | None) -> Run:
        """Give the run as it is after ``timeout_s`` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class _Started:
    run_id: str
    at: float


class Prerequisites:
    """Starts the tasks that ``if_missing`` names. Belongs to one event loop."""

    def __init__(self, starts: Starts, registry: Registry, clock: Clock) -> None:
        self._starts = starts
        self._registry = registry
        self._clock = clock
        self._started: dict[tuple[str, str], _Started] = {}

    async def see_to(self, run: Run, task: Task, entry: EnvEntry) -> str:
        """Start what sees to a missing entry of ``task``, unless it is on; say what was done."""
        assert entry.if_missing is not None
        ref = entry.if_missing.task
        found = self._registry.resolve(ref, near=task.id)
        if found is None:
            return f"if_missing names the task '{ref}', which is not there"
        if found.id == task.id:
            return "if_missing names the task itself, which cannot start without the value"
        key = (found.id, entry.key or entry.name)
        earlier = await self._earlier(key)
        if earlier is not None:
            return f"its if_missing task '{found.id}' was started before: run {earlier}"
        if run.chain_depth >= MAX_CHAIN_DEPTH:
            return f"its if_missing task '{found.id}' was not started: too deep in a chain of runs"
        try:
            child = await self._starts.submit(_request(run, task, entry, found.id))
        except DicodeError as error:
            return f"its if_missing task '{found.id}' could not be started: {error.message}"
        self._note(key, child.id)
        return f"its if_missing task '{found.id}' was started: run {child.id}"

    async def _earlier(self, key: tuple[str, str]) -> str | None:
        """Give the run that was started for a key and is on, or began a short while ago."""
        known = self._started.get(key)
        if known is None:
            return None
        if self._clock.monotonic() - known.at < REST_S:
            return known.run_id
        try:
            run = await self._starts.wait(known.run_id, 0)
        except DicodeError:
            return None
        return None if run.status.ended else known.run_id

    def _note(self, key: tuple[str, str], run_id: str) -> None:
        if len(self._started) >= MAX_KNOWN:
            self._started.clear()
        self._started[key] = _Started(run_id, self._clock.monotonic())


def _request(run: Run, task: Task, entry: EnvEntry, prerequisite: str) -> RunRequest:
    return RunRequest(
        task_id=prerequisite,
        trigger=Trigger.CHAIN,
        input={
            "name": entry.name,
            "key": entry.key or entry.name,
            "task": task.id,
            "run": run.id,
        },
        actor=passed_on(run, f"task:{task.id}"),
        strict_params=False,
        parent_run_id=run.id,
        root_run_id=run.root_run_id or run.id,
        chain_depth=run.chain_depth + 1,
        origin=origin_of(run),
    )

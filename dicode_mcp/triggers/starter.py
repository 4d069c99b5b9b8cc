"""Starts one run for one cron slot, unless the run before it is still on.

It knows which run of each task cron started last, and how each refusal of the queue is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import Enum, auto

from dicode_mcp.clock import iso
from dicode_mcp.errors import STORAGE_TROUBLE, Code, DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.queue import Queue
from dicode_mcp.runs.model import Reason, Run, RunError, RunRequest, RunStatus, Trigger
from dicode_mcp.triggers.catchup import Fire
from dicode_mcp.triggers.timetable import Plan

log = logging.getLogger("dicode.cron")

_NOT_IN_FORCE = frozenset({Code.TASK_NOT_FOUND, Code.TASK_NOT_READY, Code.TASK_PAUSED})


class Started(Enum):
    """What became of a slot."""

    WRITTEN = auto()
    """It has a row: a run, or one that says why there is none."""
    DROPPED = auto()
    """The task is no longer in force; nothing was written."""
    BUSY = auto()
    """It waits for the end of the run before it."""
    TROUBLE = auto()
    """Nothing could be written now; try again."""


class Starter:
    """Submits runs for slots, one task's slots in order."""

    def __init__(self, queue: Queue, store: Store) -> None:
        self._queue = queue
        self._store = store
        self._on: dict[str, str] = {}
        """The run of each task that has not been seen to end."""

    def recover(self, unfinished: Iterable[Run]) -> None:
        """Take note of runs that a former server began."""
        for run in unfinished:
            if run.trigger is Trigger.CRON:
                self._on[run.task_id] = run.id

    def ended(self, task_id: str, run_id: str) -> bool:
        """Take note that a run ended; tells whether it was the one its task waited for."""
        if self._on.get(task_id) != run_id:
            return False
        del self._on[task_id]
        return True

    async def start(self, plan: Plan, fire: Fire) -> Started:
        """Give a slot its run."""
        request = RunRequest(
            task_id=plan.task_id,
            trigger=Trigger.CRON,
            actor="cron",
            slot_ms=fire.slot_ms,
            catchup=fire.catchup,
        )
        try:
            before = await self._still_on(plan)
            if before is None:
                return await self._submit(request)
            if fire.catchup and plan.catchup == "all":
                return Started.BUSY
            await self._queue.record(request, _overlap(fire, before))
            return Started.WRITTEN
        except DicodeError as error:
            return self._answer(error, plan)

    async def _still_on(self, plan: Plan) -> str | None:
        """Give the run of the task that is on; the store decides, since events can get lost."""
        run_id = self._on.get(plan.task_id)
        if run_id is None or plan.overlap == "allow":
            return None
        run = await self._store.get_run(run_id)
        if run is not None and not run.status.ended:
            return run_id
        self.ended(plan.task_id, run_id)
        return None

    async def _submit(self, request: RunRequest) -> Started:
        try:
            run = await self._queue.submit(request)
        except DicodeError as error:
            if error.code in STORAGE_TROUBLE | _NOT_IN_FORCE | {Code.SHUTTING_DOWN}:
                raise
            # Nobody is there to read the answer: the row tells why the slot has no run.
            refused = RunError(error.code.value, error.message, error.hint)
            await self._queue.record(request, refused, RunStatus.FAILURE)
            return Started.WRITTEN
        if not run.status.ended:
            self._on[request.task_id] = run.id
        return Started.WRITTEN

    def _answer(self, error: DicodeError, plan: Plan) -> Started:
        if error.code in _NOT_IN_FORCE:
            return Started.DROPPED
        if error.code not in STORAGE_TROUBLE and error.code is not Code.SHUTTING_DOWN:
            raise error
        log.debug(
            "a cron run could not be stored and is tried again",
            extra={"task_id": plan.task_id, "code": error.code.value},
        )
        return Started.TROUBLE


def _overlap(fire: Fire, before: str) -> RunError:
    return RunError(
        Reason.OVERLAP,
        f"the slot {iso(fire.slot_ms)} was skipped: run {before} of this task was still on",
        "make the task quicker or its cron expression wider, or set concurrency.overlap to allow",
    )

"""Starts one run for one cron slot, and knows how each answer of the queue is met.

Whether a slot is skipped while a run is on, the queue decides, as for every run. Only what is
caught up one by one waits here for its turn.
"""

from __future__ import annotations

import logging
from enum import Enum, auto

from dicode_mcp.errors import STORAGE_TROUBLE, Code, DicodeError
from dicode_mcp.queue import Queue
from dicode_mcp.runs.model import Run, RunError, RunRequest, RunStatus, Trigger
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

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._before: dict[str, str] = {}
        """By task: the run whose end a caught-up slot waits for."""
        self._waiting: dict[str, Run] = {}
        """By task: its newest run, while it waits to start."""

    def ended(self, task_id: str, run_id: str) -> bool:
        """Take note that a run ended; tells whether it was the one its task waited for."""
        if self._before.get(task_id) != run_id:
            return False
        del self._before[task_id]
        return True

    def began(self, task_id: str, run_id: str) -> Run | None:
        """Take note that a run began or ended; gives it when it waited for a slot."""
        run = self._waiting.get(task_id)
        return self._waiting.pop(task_id) if run is not None and run.id == run_id else None

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
            if fire.catchup and plan.catchup == "all" and plan.overlap != "allow":
                before = self._queue.in_the_way(request)
                if before is not None:
                    self._before[plan.task_id] = before
                    return Started.BUSY
            return await self._submit(request)
        except DicodeError as error:
            return self._answer(error, plan)

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
        if run.status is RunStatus.QUEUED and not run.catchup:
            self._waiting[request.task_id] = run
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

"""Ends runs whose question nobody answered in time: one loop for all of them.

What waits, and until when, is in the store; the loop holds nothing that a restart would lose. How a
run ends, and what follows, is the queue's.
"""

from __future__ import annotations

import asyncio
import logging

from dicode_mcp.clock import Clock
from dicode_mcp.errors import STORAGE_TROUBLE, Code, DicodeError
from dicode_mcp.events import EventBus, RunChanged, Subscription
from dicode_mcp.protocols import Store
from dicode_mcp.queue import Queue
from dicode_mcp.runs.model import Outcome, Reason, RunError, RunStatus
from dicode_mcp.runs.questions import Question, expired

log = logging.getLogger("dicode.deadlines")

LONGEST_NAP_S = 60.0
"""How soon a jump of the wall clock is noticed at the latest."""
_PAUSE_S = 5.0


class Deadlines:
    """Keeps the deadlines of questions while ``run`` runs. Start it after the queue recovered."""

    def __init__(self, queue: Queue, store: Store, bus: EventBus, clock: Clock) -> None:
        self._queue = queue
        self._store = store
        self._bus = bus
        self._clock = clock
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """End what is due, sleep until the next deadline or question, for ever."""
        with self._bus.subscribe(kinds=(RunChanged,)) as events:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(events))
                while True:
                    self._wake.clear()
                    nap = await self._turn()
                    await self._clock.wait(self._wake, nap)

    async def _listen(self, events: Subscription) -> None:
        lost = 0
        async for event in events:
            waits = isinstance(event, RunChanged) and event.status == RunStatus.WAITING.value
            if waits or events.lost != lost:
                lost = events.lost
                self._wake.set()

    async def _turn(self) -> float:
        """End every run that is due; gives the seconds until there may be another."""
        try:
            waiting = await self._store.open_questions()
        except DicodeError as error:
            log.warning("questions could not be read", extra={"code": error.code.value})
            return _PAUSE_S
        now = self._clock.now_ms()
        for question in waiting:
            if question.deadline_ms > now:
                return min(LONGEST_NAP_S, (question.deadline_ms - now) / 1000)
            await self._expire(question)
        return LONGEST_NAP_S

    async def _expire(self, question: Question) -> None:
        message, hint = expired(question)
        now = self._clock.now_ms()
        error = RunError(Reason.ANSWER_TIMEOUT, message, hint)
        outcome = Outcome(RunStatus.TIMEOUT, now, reason=Reason.ANSWER_TIMEOUT, error=error)
        try:
            run = await self._store.get_run(question.run_id)
            if run is not None and run.status is RunStatus.WAITING:
                await self._queue.finish(run, outcome)
        except DicodeError as raised:
            # An answer or a cancel was quicker; or the store is in trouble, and then it is next.
            if raised.code is not Code.CONFLICT and raised.code not in STORAGE_TROUBLE:
                raise

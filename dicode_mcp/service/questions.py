"""Use cases on the questions of runs: what is asked, and answering, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus, RunChanged
from dicode_mcp.protocols import Store
from dicode_mcp.queue import Queue
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.runs.question_values import fit_answer
from dicode_mcp.runs.questions import Answered, Question, already
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal


class QuestionsService:
    """What callers may do with questions. A task can only ask: it answers none."""

    def __init__(
        self, *, queue: Queue, store: Store, bus: EventBus, audit: Audit, clock: Clock
    ) -> None:
        self._queue = queue
        self._store = store
        self._bus = bus
        self._audit = audit
        self._clock = clock

    async def answer(
        self,
        principal: Principal,
        run_id: str,
        given: Any = None,
        *,
        number: int | None = None,
        decline: bool = False,
        channel: str | None = None,
    ) -> None:
        """Answer or decline what a run asks; it goes on.

        ``number`` is the question that was seen: needed from the second one on, so that no answer
        is taken for another question's. Raises RUN_NOT_FOUND, FORBIDDEN, INVALID_PARAMS, and
        CONFLICT when somebody answered before (the message says who), or none is wanted.
        """
        via = channel or principal.surface
        detail = {"question": number, "declined": decline, "channel": via}
        async with self._audit.action(principal, "answer_run", run_id, **detail):
            run = await self._run(principal, run_id)
            principal.require("run", run.task_id)
            if principal.surface == "sdk":
                raise DicodeError(Code.FORBIDDEN, "a task cannot answer questions of runs")
            question = _wanted(run, await self._store.questions(run_id), number)
            now = self._clock.now_ms()
            if now >= question.deadline_ms:
                raise _too_late(question)
            value = None if decline else fit_answer(question.schema, given)
            answered = Answered(value, now, principal.actor, via)
            await self._queue.answer(run_id, question.n, answered)

    async def wanted(
        self, principal: Principal, run_id: str, number: int | None = None
    ) -> tuple[Run, Question]:
        """Give what a run asks now, for a surface that puts it; raises as ``answer`` does."""
        run = await self._run(principal, run_id)
        principal.require("run", run.task_id)
        question = _wanted(run, await self._store.questions(run_id), number)
        if self._clock.now_ms() >= question.deadline_ms:
            raise _too_late(question)
        return run, question

    async def settled(self, run_id: str, number: int) -> None:
        """Wait until a run does not ask a question any more."""
        with self._bus.subscribe(kinds=(RunChanged,)) as events:
            while any(q.n == number for q in await self._store.open_questions([run_id])):
                while getattr(await events.get(), "run_id", None) != run_id:
                    continue

    async def _run(self, principal: Principal, run_id: str) -> Run:
        run = await self._store.get_run(run_id)
        if run is None or not principal.sees(run.task_id):
            raise DicodeError(
                Code.RUN_NOT_FOUND,
                f"run '{run_id[:64]}' not found",
                hint='get_runs with status "waiting" lists the runs that ask',
            )
        return run


def _wanted(run: Run, asked: Sequence[Question], number: int | None) -> Question:
    """Choose the question an answer is for, and see that it is open."""
    if number is not None:
        question = next((q for q in asked if q.n == number), None)
    else:
        question = asked[-1] if asked else None
    if question is None:
        raise _not_asked(run, number)
    if question.answered is not None:
        raise already(question)
    if run.status is not RunStatus.WAITING:
        raise _not_asked(run, number)
    if number is None and question.n > 1:
        raise DicodeError(
            Code.CONFLICT,
            f"run {run.id} asks its question {question.n} now; say which one you saw",
            hint=f'get_run with run_id "{run.id}" shows it; answer_run with question {question.n}',
            data={"run_id": run.id, "question": question.n},
        )
    return question


def _not_asked(run: Run, number: int | None) -> DicodeError:
    what = "a question" if number is None else f"question {number}"
    return DicodeError(
        Code.CONFLICT,
        f"run {run.id} does not ask {what}; it is {run.status.value}",
        hint=f'get_run with run_id "{run.id}" shows how it stands;'
        ' get_runs with status "waiting" lists the runs that ask',
        data={"run_id": run.id, "status": run.status.value},
    )


def _too_late(question: Question) -> DicodeError:
    return DicodeError(
        Code.CONFLICT,
        f"the time to answer question {question.n} of run {question.run_id} was over at"
        f" {iso(question.deadline_ms)}",
        hint="run_task asks again",
        data={"run_id": question.run_id, "question": question.n},
    )

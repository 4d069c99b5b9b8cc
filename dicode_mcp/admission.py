"""What becomes of a request: checked against the task in force, and made the row that is committed.

Neither the store nor the dispatcher is known here. A request that cannot become a run is an error,
or, where nobody is there to be told, a row that is over before it began.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, cast

from dicode_mcp.chains import Chains
from dicode_mcp.clock import Clock
from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs import joins as joining
from dicode_mcp.runs import retry
from dicode_mcp.runs.follow_ups import chain_requests, depth_error
from dicode_mcp.runs.joins import Arrival, Join, Joins
from dicode_mcp.runs.limits import expand_key
from dicode_mcp.runs.model import (
    Payload,
    Reason,
    Run,
    RunError,
    RunRequest,
    RunStatus,
    Trigger,
    new_run_id,
)
from dicode_mcp.runs.notices import Delivery, NoticeChange, Telling
from dicode_mcp.spec.model import FailureChain, RunInputsSpec, Task
from dicode_mcp.spec.params import bind_params, fill_params
from dicode_mcp.telling import Notices

MAX_INPUT_BYTES = 8 * 1024 * 1024


class Admission:
    """Makes rows of requests. ``on_failure_chain`` is what tasks get that declare none."""

    def __init__(
        self,
        registry: Registry,
        chains: Chains,
        clock: Clock,
        on_failure_chain: FailureChain | None = None,
        notices: Notices | None = None,
        random: Random | None = None,
        run_inputs: RunInputsSpec | None = None,
    ) -> None:
        self._registry = registry
        self._chains = chains
        self._clock = clock
        self._on_failure_chain = on_failure_chain
        self._notices = notices
        self._random = random or Random()
        self._run_inputs = run_inputs or RunInputsSpec()

    def admit(self, request: RunRequest) -> tuple[Run, Payload]:
        """Give the queued run of a request and what it is started with.

        Raises TASK_NOT_FOUND, TASK_NOT_READY, TASK_PAUSED, INVALID_PARAMS, INVALID_ARGUMENT or
        TOO_LARGE.
        """
        return self._build(request, request.given or self._task_for(request.task_id))

    def over(
        self, request: RunRequest, error: RunError, status: RunStatus, reason: str | None = None
    ) -> tuple[Run, Payload]:
        """Give a run that is over before it began, so that it is seen."""
        entry = self._registry.get(request.task_id)
        row = self._row(request, request.task_id, entry.task if entry else None)
        ended = replace(
            row,
            status=status,
            finished_at_ms=row.created_at_ms,
            reason=reason or error.code,
            error=error,
        )
        if request.input is not None and not self.keeps_input(request.task_id):
            return ended, Payload(dropped=True)
        return ended, Payload(input=request.input)

    def skipped(self, run: Run, payload: Payload, error: RunError) -> tuple[Run, Payload]:
        """Give a run that was let in by everything but its task's limits, as over."""
        ended = replace(
            run,
            status=RunStatus.SKIPPED,
            finished_at_ms=run.created_at_ms,
            reason=error.code,
            error=error,
        )
        return ended, payload if self.keeps_input(run.task_id) else Payload(dropped=True)

    def follow_ups(self, ended: Run) -> list[tuple[Run, Payload | None]]:
        """Give the rows that follow from the end of a run: its next attempt, or what comes after.

        What follows a failure follows the last attempt only. The next attempt has no payload of
        its own: it is started with what ``ended`` was started with.
        """
        if ended.trigger in (Trigger.TEST, Trigger.AGENT):
            return []
        attempt = self._next_attempt(ended)
        return [(attempt, None)] if attempt is not None else [*self._after(ended)]

    def _next_attempt(self, ended: Run) -> Run | None:
        entry = self._registry.get(ended.task_id)
        if entry is None or entry.task is None:
            return None
        paused = find(entry.conditions, ConditionType.PAUSED)
        if paused is not None and paused.status:
            return None
        when = retry.again(ended, entry.task.spec.retry, self._random)
        return None if when is None else retry.next_attempt(ended, when, entry.task)

    def _after(self, ended: Run) -> list[tuple[Run, Payload]]:
        """Give the chains and the failure chain; those of rows that fail at once come too."""
        rows: list[tuple[Run, Payload]] = []
        for request in self._requests(ended):
            row = self._follow_up_row(request)
            rows.append(row)
            if row[0].status is RunStatus.FAILURE:
                rows += self._after(row[0])
        return rows

    def joins(
        self, ended: Run, follow_ups: Sequence[tuple[Run, Payload | None]]
    ) -> tuple[Joins | None, list[str]]:
        """Give what the end of a run means for the tasks that wait for several.

        The second is filled, in the transaction, with the ids of the queued runs it may add.
        """
        graph = self._chains.graph()
        made: list[str] = []
        if not graph.joins or ended.trigger is Trigger.TEST:
            return None, made
        goes_on = any(row.retry_of == ended.id for row, _ in follow_ups)
        ends = [] if goes_on else [ended]
        ends += [row for row, _ in follow_ups if row.status.ended]
        feeds = tuple(
            (join, joining.arrival_of(run, join))
            for run in ends
            for join in self._chains.joined_to(run.task_id)
        )
        tasks = {join.task_id: self._task_or_error(join.task_id) for join, _ in feeds}

        def fire(join: Join, runs: Mapping[str, Run], last: Run) -> joining.Rows:
            request = joining.join_request(join, runs, last)
            deep = depth_error(request)
            if deep is not None:
                return [self.over(request, deep, RunStatus.SKIPPED)]
            row, payload = self._row_or_over(request, tasks[join.task_id])
            made.append(row.id)
            return [(row, payload)]

        def unmet(task_id: str, arrived: Sequence[Arrival], runs: Sequence[Run]) -> joining.Rows:
            join = graph.joins.get(task_id)
            if join is None:
                return []
            error = joining.unmet_error(join, arrived, runs)
            request = joining.unmet_request(task_id, ended)
            row, payload = self.over(request, error, RunStatus.SKIPPED)
            made.append(row.id)
            return [(row, payload)]

        return Joins(ended.root_run_id or ended.id, feeds, fire, unmet), made

    def keeps_input(self, task_id: str) -> bool:
        """Tell whether what a run of the task began with is kept when it has ended."""
        entry = self._registry.get(task_id)
        own = entry.task.spec.run_inputs if entry and entry.task else None
        return (own or self._run_inputs).enabled

    def _requests(self, ended: Run) -> list[RunRequest]:
        requests = chain_requests(ended, self._chains.downstream_of(ended.task_id))
        failure = self._chains.failure_request(ended, self._on_failure_chain)
        if failure is not None:
            requests.append(failure)
        return requests

    def notice(self, ended: Run) -> NoticeChange | None:
        """Give what people may be told of the end of a run that is not tried again, or None."""
        about = self._notices.about(ended) if self._notices else None
        if about is None or isinstance(about, Delivery):
            return about
        task = self._task_or_error(about.request.task_id)
        row_id = new_run_id(self._clock.now_ms())

        def make(input: Mapping[str, Any]) -> tuple[Run, Payload]:
            request = replace(about.request, input=dict(input))
            row, payload = self._row_or_over(request, task)
            return replace(row, id=row_id), payload

        return Telling(ended, about.task_name, about.rules, row_id, make, about.url)

    def _follow_up_row(self, request: RunRequest) -> tuple[Run, Payload]:
        """Make the row of a follow-up; one that cannot run is kept as ended, with the reason."""
        too_deep = depth_error(request)
        if too_deep is not None:
            return self.over(request, too_deep, RunStatus.SKIPPED)
        return self._row_or_over(request, self._task_or_error(request.task_id))

    def _task_or_error(self, task_id: str) -> Task | DicodeError:
        try:
            return self._task_for(task_id)
        except DicodeError as error:
            return error

    def _row_or_over(self, request: RunRequest, task: Task | DicodeError) -> tuple[Run, Payload]:
        try:
            if isinstance(task, DicodeError):
                raise task
            return self._build(request, task)
        except DicodeError as error:
            paused = error.code is Code.TASK_PAUSED
            return self.over(
                request,
                RunError(error.code.value, error.message, error.hint),
                RunStatus.SKIPPED if paused else RunStatus.FAILURE,
                reason=_reason_for(error),
            )

    def _task_for(self, task_id: str) -> Task:
        entry = self._registry.resolve(task_id)
        if entry is None:
            raise self._registry.unknown_task(task_id)
        if entry.task is None:
            raise _not_ready(entry)
        paused = find(entry.conditions, ConditionType.PAUSED)
        if paused is not None and paused.status:
            raise DicodeError(
                Code.TASK_PAUSED,
                f"task {entry.id} is paused: {paused.message or 'by an operator'}",
                hint=f'call set_task_enabled with id "{entry.id}" and enabled true',
                retry=Retry.AFTER,
            )
        return entry.task

    def _build(self, request: RunRequest, task: Task) -> tuple[Run, Payload]:
        given = dict(request.params)
        source: object = request.input
        if not request.strict_params and isinstance(source, Mapping):
            fields = cast("Mapping[str, Any]", source)
            given = {**fill_params(task.spec.params, fields), **given}
        bound = bind_params(task.spec.params, given, strict=request.strict_params)
        payload = Payload(params=bound, input=request.input, request=request.request)
        _check_size(payload)
        row = self._row(request, task.id, task)
        return replace(row, limit_key=expand_key(task.spec.concurrency, bound)), payload

    def _row(self, request: RunRequest, task_id: str, task: Task | None) -> Run:
        now = self._clock.now_ms()
        run_id = new_run_id(now)
        return Run(
            id=run_id,
            task_id=task_id,
            status=RunStatus.QUEUED,
            trigger=request.trigger,
            created_at_ms=now,
            task_hash=task.digest if task else "",
            revision=task.revision if task else None,
            actor=request.actor,
            origin=request.origin,
            attempt=request.attempt,
            priority=_priority(request, task),
            parent_run_id=request.parent_run_id,
            root_run_id=request.root_run_id or run_id,
            replay_of=request.replay_of,
            retry_of=request.retry_of,
            retry_until_ms=request.retry_until_ms,
            chain_depth=request.chain_depth,
            idempotency_key=request.idempotency_key,
            not_before_ms=request.not_before_ms,
            slot_ms=request.slot_ms,
            catchup=request.catchup,
        )


def _priority(request: RunRequest, task: Task | None) -> int:
    if request.priority is not None:
        return request.priority
    return task.spec.priority if task else 0


def _not_ready(entry: Entry) -> DicodeError:
    problems = [str(p) for p in entry.problems]
    if entry.waiting is not None:
        return DicodeError(
            Code.TASK_NOT_READY,
            f"task {entry.id} is not approved: its version {entry.waiting.short_hash} waits for a"
            " human",
            hint=f'get_task with id "{entry.id}" shows what it may do; approve_task with its hash'
            f" asks a human, or on a terminal: dicode task approve {entry.id}",
            data={"pending": entry.waiting.digest},
            retry=Retry.AFTER,
        )
    ready = find(entry.conditions, ConditionType.READY)
    detail = "; ".join(problems[:5]) or (ready.message if ready else "") or "it never loaded"
    return DicodeError(
        Code.TASK_NOT_READY,
        f"task {entry.id} has no good version yet: {detail}",
        hint="mend what is named; it is taken up as soon as it is saved",
        data={"problems": problems},
        retry=Retry.AFTER,
    )


def _reason_for(error: DicodeError) -> str:
    if error.code is Code.INVALID_PARAMS:
        return Reason.INVALID_PARAMS
    if error.code in (Code.TASK_NOT_FOUND, Code.TASK_NOT_READY):
        return Reason.TASK_GONE
    return error.code.value


def _check_size(payload: Payload) -> None:
    try:
        size = len(json.dumps([payload.input, payload.params], allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "the input or a parameter is not JSON (NaN, infinity, or an object of Python)",
            hint="send plain JSON values",
        ) from None
    if size > MAX_INPUT_BYTES:
        raise DicodeError(
            Code.TOO_LARGE,
            f"the input is {size} bytes as JSON; at most {MAX_INPUT_BYTES} are taken",
            hint="pass a reference (a path or URL) instead of the data",
        )

"""What becomes of a request: checked against the task in force, and made the row that is committed.

Neither the store nor the dispatcher is known here. A request that cannot become a run is an error,
or, where nobody is there to be told, a row that is over before it began.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from dicode_mcp.chains import Chains
from dicode_mcp.clock import Clock
from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.follow_ups import chain_requests, depth_error
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
from dicode_mcp.spec.model import FailureChain, Task
from dicode_mcp.spec.params import bind_params, fill_params

MAX_INPUT_BYTES = 8 * 1024 * 1024


class Admission:
    """Makes rows of requests. ``on_failure_chain`` is what tasks get that declare none."""

    def __init__(
        self,
        registry: Registry,
        chains: Chains,
        clock: Clock,
        on_failure_chain: FailureChain | None = None,
    ) -> None:
        self._registry = registry
        self._chains = chains
        self._clock = clock
        self._on_failure_chain = on_failure_chain

    def admit(self, request: RunRequest) -> tuple[Run, Payload]:
        """Give the queued run of a request and what it is started with.

        Raises TASK_NOT_FOUND, TASK_NOT_READY, TASK_PAUSED, INVALID_PARAMS, INVALID_ARGUMENT or
        TOO_LARGE.
        """
        return self._build(request, self._task_for(request))

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
        return ended, Payload(input=request.input)

    def follow_ups(self, ended: Run) -> list[tuple[Run, Payload]]:
        """Give the rows that follow from the end of a run: chains and the failure chain."""
        if ended.trigger is Trigger.TEST:
            return []
        requests = chain_requests(ended, self._chains.downstream_of(ended.task_id))
        failure = self._chains.failure_request(ended, self._on_failure_chain)
        if failure is not None:
            requests.append(failure)
        return [self._follow_up_row(request) for request in requests]

    def _follow_up_row(self, request: RunRequest) -> tuple[Run, Payload]:
        """Make the row of a follow-up; one that cannot run is kept as ended, with the reason."""
        too_deep = depth_error(request)
        if too_deep is not None:
            return self.over(request, too_deep, RunStatus.SKIPPED)
        try:
            return self._build(request, self._task_for(request))
        except DicodeError as error:
            paused = error.code is Code.TASK_PAUSED
            return self.over(
                request,
                RunError(error.code.value, error.message, error.hint),
                RunStatus.SKIPPED if paused else RunStatus.FAILURE,
                reason=_reason_for(error),
            )

    def _task_for(self, request: RunRequest) -> Task:
        entry = self._registry.resolve(request.task_id)
        if entry is None:
            raise self._registry.unknown_task(request.task_id)
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
        return self._row(request, task.id, task), payload

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
            attempt=request.attempt,
            priority=request.priority,
            parent_run_id=request.parent_run_id,
            root_run_id=request.root_run_id or run_id,
            replay_of=request.replay_of,
            chain_depth=request.chain_depth,
            idempotency_key=request.idempotency_key,
            not_before_ms=request.not_before_ms,
            slot_ms=request.slot_ms,
            catchup=request.catchup,
        )


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

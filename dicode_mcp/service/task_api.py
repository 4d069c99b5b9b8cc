"""Runs in the record form of the orchestrator's API, and starting tasks by their type there.

A record is ``{type, status, timestamp, durationMs, result, error}``, absent values null, with our
own fields beside it (``run_id``, ``run_status``, …). Its status has three words: ``pending`` until
a run has ended, ``completed`` when it succeeded, ``error`` for every other end; a skipped run is
an error too, since what was asked for was not done. ``run_status`` is the precise one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import RunQuery, Store
from dicode_mcp.registry import Registry
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.runs import RunsService
from dicode_mcp.service.visible import visible_tasks
from dicode_mcp.triggers.api_types import ApiTypes, may_be_triggered

COUNTED = 10_000
"""``total`` is exact up to this number."""
LONGEST_RESULT = 8 * 1024
"""Bytes of JSON that a record shows of a result; ``GET /api/runs/{id}`` has all of it."""
PRIORITIES: Mapping[str, int] = {"low": -10, "normal": 0, "high": 10}

STATUSES: Mapping[str, frozenset[RunStatus]] = {
    "pending": frozenset(status for status in RunStatus if not status.ended),
    "completed": frozenset({RunStatus.SUCCESS}),
    "error": frozenset(s for s in RunStatus if s.ended and s is not RunStatus.SUCCESS),
    **{status.value: frozenset({status}) for status in RunStatus},
}
"""What may be asked for: a record's status, or a run's."""


class TaskApiService:
    """What programs may do that know tasks by type."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: Store,
        runs: RunsService,
        types: ApiTypes,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._store = store
        self._runs = runs
        self._types = types
        self._clock = clock

    async def runs(
        self,
        principal: Principal,
        *,
        type: str | None = None,
        status: str | None = None,
        limit: int = 20,
        offset: int = 0,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Give records, newest first: ``{generatedAt, query, total, page, runs[]}``.

        ``total`` counts to ``COUNTED`` and no further; ``total_is_estimate`` says that there are
        more. ``offset`` reaches 10,000 runs back; ``page.next_cursor`` goes on from anywhere.
        """
        principal.require("read")
        query = RunQuery(
            task_id=None if type is None else self._task_id(principal, type),
            statuses=None if status is None else STATUSES[status],
            limit=limit,
            offset=offset,
            cursor=cursor,
            task_ids=visible_tasks(self._registry, principal) if type is None else None,
        )
        page = await self._store.list_runs(query)
        total = await self._store.matching_runs(query, at_most=COUNTED + 1)
        if type is not None and not total and self._types.resolve(type) is None:
            raise self._registry.unknown_task(type, principal.sees)
        seen = [run for run in page.items if principal.sees(run.task_id)]
        values = await self._store.return_values([r.id for r in seen], at_most=LONGEST_RESULT)
        asked = {"type": type, "status": status, "limit": limit, "offset": offset, "cursor": cursor}
        answer: dict[str, Any] = {
            "generatedAt": iso(self._clock.now_ms()),
            "query": {name: value for name, value in asked.items() if value is not None},
            "total": min(total, COUNTED),
            "page": {"limit": limit, "offset": offset, "returned": len(seen)},
            "runs": [self._record(run, values) for run in seen],
        }
        if total > COUNTED:
            answer["total_is_estimate"] = True
        if page.next_cursor:
            answer["page"]["next_cursor"] = page.next_cursor
        return answer

    async def trigger(
        self,
        principal: Principal,
        type: str,
        *,
        params: Mapping[str, Any] | None = None,
        priority: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Start a task that lets programs do so: ``{runId, type, status, timestamp, …}``.

        Raises TASK_NOT_FOUND; FORBIDDEN, with the line to add, for a task that does not.
        """
        entry = self._types.resolve(type)
        if entry is None or not principal.sees(entry.id):
            raise self._unknown(principal, type)
        if not may_be_triggered(entry):
            raise DicodeError(
                Code.FORBIDDEN,
                f"task {entry.id} may not be started over /api/tasks/trigger",
                hint="add to its task.yaml: api: {trigger: true}",
                retry=Retry.AFTER,
            )
        run = await self._runs.start(
            principal,
            entry.id,
            params=params,
            idempotency_key=idempotency_key,
            priority=None if priority is None else PRIORITIES[priority],
        )
        return {
            "runId": run["run_id"],
            "type": self._types.type_of(entry.id),
            "status": word_of(RunStatus(run["status"])),
            "timestamp": run["created_at"],
            "run_status": run["status"],
            "task": entry.id,
        }

    def _task_id(self, principal: Principal, type: str) -> str:
        """Give the id behind a type; one that names no task may name one that is gone."""
        entry = self._types.resolve(type)
        task_id = entry.id if entry else type
        if not principal.sees(task_id):
            raise self._unknown(principal, type)
        return task_id

    def _unknown(self, principal: Principal, type: str) -> DicodeError:
        error = self._registry.unknown_task(type, principal.sees)
        offered = [
            name
            for name in self._types.triggerable()
            if (entry := self._types.resolve(name)) is not None and principal.sees(entry.id)
        ]
        shown = ", ".join(offered[:20]) or "none"
        return DicodeError(
            Code.TASK_NOT_FOUND,
            error.message,
            hint=f"types that may be triggered: {shown}",
            data=error.data,
        )

    def _record(self, run: Run, values: Mapping[str, str | None]) -> dict[str, Any]:
        record: dict[str, Any] = {
            "type": self._types.type_of(run.task_id),
            "status": word_of(run.status),
            "timestamp": iso(run.created_at_ms),
            "durationMs": run.duration_ms,
            "result": None,
            "error": _error_of(run),
            "run_id": run.id,
            "run_status": run.status.value,
            "task": run.task_id,
            "trigger": run.trigger.value,
            "attempt": run.attempt,
        }
        for name, moment in (
            ("started_at", run.started_at_ms),
            ("finished_at", run.finished_at_ms),
        ):
            if moment is not None:
                record[name] = iso(moment)
        if run.reason is not None:
            record["reason"] = run.reason
        if run.id in values:
            value = values[run.id]
            if value is None:
                record["result_truncated"] = True
            else:
                record["result"] = json.loads(value)
        return record


def word_of(status: RunStatus) -> str:
    """Give a run's status in the three words of the API."""
    return next(word for word, statuses in STATUSES.items() if status in statuses)


def _error_of(run: Run) -> str | None:
    if run.status in STATUSES["error"]:
        return run.error.message if run.error else f"the run ended as {run.status.value}"
    return None

"""Use cases on runs: start, wait, look, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus, LogAppended, RunProgress
from dicode_mcp.protocols import LogQuery, RunQuery, Store
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Registry
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Run, RunRequest, RunStatus, Trigger
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.views import log_view, run_detail, run_line

Told = RunProgress | LogAppended
"""What a run tells while it is on."""
OnTold = Callable[[Told], Awaitable[None]]

TAIL_LINES = 20

_TRIGGERS = {"mcp": Trigger.MCP, "cli": Trigger.CLI, "http": Trigger.API, "sdk": Trigger.SDK}


class RunsService:
    """What callers may do with runs."""

    def __init__(
        self, *, queue: Queue, registry: Registry, store: Store, bus: EventBus, audit: Audit
    ) -> None:
        self._queue = queue
        self._registry = registry
        self._store = store
        self._bus = bus
        self._audit = audit

    async def start(
        self,
        principal: Principal,
        task_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        input: Any = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Commit a run of a task and show it. Raises what ``Queue.submit`` raises."""
        async with self._audit.action(principal, "run_task", task_id):
            entry = self._registry.resolve(task_id)
            if entry is None or not principal.sees(entry.id):
                raise self._registry.unknown_task(task_id, principal.sees)
            principal.require("run", entry.id)
            run = await self._queue.submit(
                RunRequest(
                    task_id=entry.id,
                    trigger=_TRIGGERS.get(principal.surface, Trigger.MANUAL),
                    params=params or {},
                    input=input,
                    actor=principal.actor,
                    idempotency_key=idempotency_key,
                )
            )
        if run.status.ended:
            # The idempotency key was used before: what that run gave is the answer.
            return await self.get(principal, run.id)
        return run_detail(run)

    async def wait(
        self,
        principal: Principal,
        run_id: str,
        seconds: float,
        on_told: OnTold | None = None,
    ) -> dict[str, Any]:
        """Show a run once it has ended, or as it stands after ``seconds``.

        ``on_told`` gets what the task tells meanwhile: its progress and its log.
        """
        if principal.task_globs is not None:
            await self._run(principal, run_id)
        principal.require("read")
        if on_told is None or seconds <= 0:
            run = await self._queue.wait(run_id, seconds)
        else:
            run = await self._wait_and_tell(run_id, seconds, on_told)
        return run_detail(run, await self._tail(run.id))

    async def _wait_and_tell(self, run_id: str, seconds: float, on_told: OnTold) -> Run:
        # Not a TaskGroup: a listener that is gone must not end the wait, nor wrap its errors.
        teller = asyncio.create_task(self._tell(run_id, on_told))
        try:
            return await self._queue.wait(run_id, seconds)
        finally:
            teller.cancel()
            await asyncio.gather(teller, return_exceptions=True)

    async def _tell(self, run_id: str, on_told: OnTold) -> None:
        with self._bus.subscribe(kinds=(RunProgress, LogAppended)) as events:
            async for event in events:
                if isinstance(event, RunProgress | LogAppended) and event.run_id == run_id:
                    await on_told(event)

    async def list(
        self,
        principal: Principal,
        *,
        task: str | None = None,
        status: str | None = None,
        since_ms: int | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """List runs, newest first: ``{runs: […], next_cursor?}``.

        ``task`` may name a task that is gone: its runs stay.
        """
        principal.require("read")
        task_id = task
        if task is not None:
            entry = self._registry.resolve(task)
            task_id = entry.id if entry else task
            if not principal.sees(task_id):
                raise self._registry.unknown_task(task, principal.sees)
        query = RunQuery(
            task_id=task_id,
            statuses=frozenset({RunStatus(status)}) if status else None,
            since_ms=since_ms,
            limit=limit,
            cursor=cursor,
        )
        page = await self._store.list_runs(query)
        if task is not None and not page.items and self._registry.get(task_id or "") is None:
            raise self._registry.unknown_task(task, principal.sees)
        result: dict[str, Any] = {
            "runs": [run_line(run) for run in page.items if principal.sees(run.task_id)]
        }
        if page.next_cursor:
            result["next_cursor"] = page.next_cursor
        return result

    async def get(self, principal: Principal, run_id: str) -> dict[str, Any]:
        """Show one run whole, with the end of its log."""
        run = await self._run(principal, run_id)
        return run_detail(run, await self._tail(run.id))

    async def logs(
        self,
        principal: Principal,
        run_id: str,
        *,
        after: int = 0,
        tail: int | None = None,
        level: str | None = None,
        limit: int = 500,
    ) -> dict[str, Any]:
        """Give lines of a run's log: ``{run_id, status, lines: […], next_after?}``."""
        run = await self._run(principal, run_id)
        page = await self._store.read_logs(
            run_id,
            LogQuery(
                after=after,
                tail=tail,
                level=Level.parse(level) if level else None,
                limit=limit,
            ),
        )
        result: dict[str, Any] = {
            "run_id": run_id,
            "status": run.status.value,
            "lines": [log_view(line) for line in page.lines],
        }
        if page.next_after is not None:
            result["next_after"] = page.next_after
        return result

    async def cancel(self, principal: Principal, run_id: str) -> dict[str, Any]:
        """End a run; shows it once its process tree is gone, or as it is after 10 s."""
        async with self._audit.action(principal, "cancel_run", run_id):
            run = await self._run(principal, run_id)
            principal.require("run", run.task_id)
            await self._queue.cancel(run_id)
        run = await self._queue.wait(run_id, 10.0)
        return run_detail(run, await self._tail(run_id))

    async def _run(self, principal: Principal, run_id: str) -> Run:
        principal.require("read")
        run = await self._store.get_run(run_id)
        if run is None or not principal.sees(run.task_id):
            raise DicodeError(
                Code.RUN_NOT_FOUND,
                f"run '{run_id[:64]}' not found",
                hint="call get_runs to list runs",
            )
        return run

    async def _tail(self, run_id: str) -> Sequence[LogLine]:
        page = await self._store.read_logs(run_id, LogQuery(tail=TAIL_LINES))
        return page.lines

"""Use cases on runs: start, wait, look, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus, LogAppended, RunProgress
from dicode_mcp.protocols import LogQuery, RunQuery, Store
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Registry
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Run, RunRequest, RunStatus, Trigger
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.families import MAX_TREE, attempts_view, tree_view
from dicode_mcp.service.inputs import RunInputs
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.views import log_view, question_line, run_detail, run_line
from dicode_mcp.service.visible import as_seen, visible_tasks

Told = RunProgress | LogAppended
"""What a run tells while it is on."""
OnTold = Callable[[Told], Awaitable[None]]

TAIL_LINES = 20

_TRIGGERS = {"mcp": Trigger.MCP, "cli": Trigger.CLI, "http": Trigger.API, "sdk": Trigger.SDK}


class RunsService:
    """What callers may do with runs."""

    def __init__(
        self,
        *,
        queue: Queue,
        registry: Registry,
        store: Store,
        bus: EventBus,
        audit: Audit,
        inputs: RunInputs,
    ) -> None:
        self._inputs = inputs
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
        priority: int | None = None,
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
                    priority=priority,
                )
            )
        if run.status.ended:
            # Skipped, or the idempotency key was used before: what that run gave is the answer.
            return await self.latest(principal, run.id)
        return run_detail(run)

    async def wait(
        self,
        principal: Principal,
        run_id: str,
        seconds: float,
        on_told: OnTold | None = None,
        *,
        seen_questions: int | None = None,
        series: bool = False,
    ) -> dict[str, Any]:
        """Show a run once it has ended, or as it stands after ``seconds``.

        With ``seen_questions``, a count, also once it asks one more. ``on_told`` gets what the task
        tells meanwhile: its progress and its log. With ``series`` the attempts that follow are
        waited for too, as far as they may start in time, and the last one is shown.
        """
        if not principal.has_all("read"):
            await self._run(principal, run_id)
        principal.require("read")
        ids = {run_id}
        # A start asks at most once, so the n-th question is asked by the n-th start.
        waiting = (
            self._queue.wait_series(
                run_id, seconds, question_after=seen_questions, on_attempt=ids.add
            )
            if series
            else self._queue.wait(run_id, seconds, question_after=seen_questions)
        )
        if on_told is None or seconds <= 0:
            return await self._detail(principal, await waiting)
        return await self._detail(principal, await self._wait_and_tell(waiting, ids, on_told))

    async def _wait_and_tell(
        self, waiting: Coroutine[Any, Any, Run], ids: Collection[str], on_told: OnTold
    ) -> Run:
        # Not a TaskGroup: a listener that is gone must not end the wait, nor wrap its errors.
        teller = asyncio.create_task(self._tell(ids, on_told))
        try:
            return await waiting
        finally:
            teller.cancel()
            await asyncio.gather(teller, return_exceptions=True)

    async def _tell(self, ids: Collection[str], on_told: OnTold) -> None:
        with self._bus.subscribe(kinds=(RunProgress, LogAppended)) as events:
            async for event in events:
                if isinstance(event, RunProgress | LogAppended) and event.run_id in ids:
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
            task_ids=visible_tasks(self._registry, principal) if task is None else None,
        )
        page = await self._store.list_runs(query)
        if task is not None and not page.items and self._registry.get(task_id or "") is None:
            raise self._registry.unknown_task(task, principal.sees)
        seen = [run for run in page.items if principal.sees(run.task_id)]
        lines = await self._lines(await as_seen(self._store, principal, seen))
        result: dict[str, Any] = {"runs": lines}
        if page.next_cursor:
            result["next_cursor"] = page.next_cursor
        return result

    async def get(
        self, principal: Principal, run_id: str, *, tree: bool = False, given: bool = False
    ) -> dict[str, Any]:
        """Show one run whole, with the end of its log.

        ``tree`` adds the runs under its root that the caller may see, at most 100; ``given`` what
        it was started with, for those who may start it. Raises RUN_NOT_FOUND, FORBIDDEN.
        """
        run = await self._run(principal, run_id)
        view = await self._detail(principal, run)
        if given:
            principal.require("run", run.task_id)
            view["given"] = await self._inputs.shown(run)
        if tree:
            found = await self._store.tree(run.root_run_id or run.id, MAX_TREE + 1)
            seen = [one for one in found if principal.sees(one.task_id)]
            view["tree"] = tree_view(await as_seen(self._store, principal, seen))
            if len(found) > MAX_TREE and principal.has_all("read"):
                view["tree_truncated"] = True
        return view

    async def latest(self, principal: Principal, run_id: str) -> dict[str, Any]:
        """Show the newest attempt of the wish a run belongs to; most have but one."""
        run = await self._run(principal, run_id)
        attempts = await self._store.attempts(run_id)
        if attempts and attempts[-1].id != run.id:
            run = await self._run(principal, attempts[-1].id)
        return await self._detail(principal, run)

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
        """End a run; shows it once its process tree is gone, or as it is after 10 s.

        Of a run that has ended and is tried again, the attempt that is on or waits is ended.
        """
        async with self._audit.action(principal, "cancel_run", run_id):
            run = await self._run(principal, run_id)
            principal.require("run", run.task_id)
            if run.status.ended and await self._queue.next_attempt(run) is not None:
                attempts = await self._store.attempts(run_id)
                run_id = run_id if attempts[-1].status.ended else attempts[-1].id
            await self._queue.cancel(run_id)
        return await self._detail(principal, await self._queue.wait(run_id, 10.0))

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

    async def _lines(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Show runs as listings do, those that wait with what they ask."""
        waiting = [run.id for run in runs if run.status is RunStatus.WAITING]
        asked = await self._store.open_questions(waiting) if waiting else ()
        questions = {q.run_id: {"question": question_line(q)} for q in asked}
        return [{**run_line(run), **questions.get(run.id, {})} for run in runs]

    async def _detail(self, principal: Principal, run: Run) -> dict[str, Any]:
        (run,) = await as_seen(self._store, principal, (run,))
        # Only a run that has asked has begun twice, or waits.
        asks = run.status is RunStatus.WAITING or run.fence > 1 or run.waited_ms > 0
        asked = await self._store.questions(run.id) if asks else ()
        related = run.attempt > 1 or (
            run.status.ended and run.status not in (RunStatus.SUCCESS, RunStatus.SKIPPED)
        )
        attempts = await self._store.attempts(run.id) if related else ()
        view = run_detail(run, await self._tail(run.id), asked)
        return {**view, **attempts_view(run, attempts)}

    async def _tail(self, run_id: str) -> Sequence[LogLine]:
        page = await self._store.read_logs(run_id, LogQuery(tail=TAIL_LINES))
        return page.lines

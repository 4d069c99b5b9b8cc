"""What a stranger may see of a run that a webhook started: its end, and what it prints meanwhile.

The run's id is the right to look: 80 random bits that only the starter was told. Shown are runs of
that webhook's task that a webhook started, never params, input, tracebacks or another task's runs.
A task whose webhook wants a proof of its callers shows nothing to those without one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import RunProgress
from dicode_mcp.protocols import Store
from dicode_mcp.queue import Queue
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Run, Trigger
from dicode_mcp.service.events import EventsService, Lines, Moved, Told
from dicode_mcp.service.page_files import has_page
from dicode_mcp.service.principal import Principal
from dicode_mcp.spec.model import Task

MAX_WAIT_S = 25.0
SHOWN_LEVEL = Level.INFO
"""What a task prints or logs with ``log.info``. Warnings and errors are for its owner: they hold
tracebacks and what libraries say."""


class HookRuns:
    """Shows runs to whoever holds their ids."""

    def __init__(self, *, store: Store, queue: Queue, events: EventsService) -> None:
        self._store = store
        self._queue = queue
        self._events = events

    @property
    def streams(self) -> int:
        """How many event streams are open, of all kinds."""
        return self._events.readers

    async def get(
        self, task: Task, run_id: str, *, wait_s: float = 0.0, principal: Principal | None = None
    ) -> dict[str, Any]:
        """Show a run once it has ended, or as it stands after ``wait_s`` seconds (at most 25).

        ``{runId, status, done, contentType?, body?, base64?, returnValue?, error?}``. Raises
        RUN_NOT_FOUND for whatever is not the caller's to see.
        """
        run = await self._run(task, run_id, principal)
        if wait_s > 0 and not run.status.ended:
            run = await self._queue.wait(run.id, min(wait_s, MAX_WAIT_S))
        return shown_run(run)

    async def follow(
        self, task: Task, run_id: str, *, after: int = 0, principal: Principal | None = None
    ) -> AsyncGenerator[Told | None]:
        """Give a run's events to its end: ``status``, ``progress``, ``log`` and last ``finish``.

        Lines of the log come only from a task that has a page. Raises as ``get`` does.
        """
        run = await self._run(task, run_id, principal)
        with_log = await asyncio.to_thread(has_page, task.folder)
        return self._told(run.id, after, with_log)

    async def _told(self, run_id: str, after: int, with_log: bool) -> AsyncGenerator[Told | None]:
        async with aclosing(self._events.follow(run_id, after=after)) as following:
            async for told in following:
                match told:
                    case Moved(run) if run.status.ended:
                        yield Told("finish", shown_run(run))
                    case Moved(run):
                        yield Told("status", {"runId": run.id, "status": run.status.value})
                    case Lines(lines):
                        for line in lines:
                            if with_log and line.level is SHOWN_LEVEL:
                                yield Told("log", _shown_line(line), str(line.seq))
                    case RunProgress():
                        yield Told("progress", _shown_progress(told))
                    case None:
                        yield None

    async def _run(self, task: Task, run_id: str, principal: Principal | None) -> Run:
        known = principal is not None and principal.allows("read", task.id)
        trigger = task.spec.trigger
        run = None
        if known or not (trigger.auth or trigger.webhook_secret):
            run = await self._store.get_run(run_id)
        if run is None or run.task_id != task.id or run.trigger is not Trigger.WEBHOOK:
            raise DicodeError(
                Code.RUN_NOT_FOUND,
                "this webhook started no run with that id that you may see",
                hint="use the runId or X-Run-Id of the answer to your own call; runs of a webhook"
                " with auth or webhook_secret are shown to callers with a key only",
            )
        return run


def shown_run(run: Run) -> dict[str, Any]:
    """Show what a run came to, as its caller may see it."""
    shown: dict[str, Any] = {
        "runId": run.id,
        "status": run.status.value,
        "done": run.status.ended,
    }
    if run.output is not None:
        shown |= {"contentType": run.output.content_type, "body": run.output.body}
        if run.output.base64:
            shown["base64"] = True
    if run.return_value is not None:
        shown["returnValue"] = json.loads(run.return_value)
        if run.output is None:
            shown |= {"contentType": "application/json", "body": run.return_value}
    if run.error is not None:
        shown["error"] = {"code": run.error.code, "message": run.error.message}
    return shown


def _shown_line(line: LogLine) -> dict[str, Any]:
    return {"seq": line.seq, "ts": line.ts_ms, "level": line.level.label, "message": line.message}


def _shown_progress(progress: RunProgress) -> dict[str, Any]:
    total = {} if progress.total is None else {"total": progress.total}
    return {"done": progress.done, **total, "message": progress.message}

"""The fixture's long tools, and jobs that live in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import mcp_types as t
from fixture_parts import arguments, said, tool
from fixture_rounds import entered
from fixture_tools import object_of

from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.principal import Principal
from dicode_mcp.tools.jobs import Job
from dicode_mcp.tools.questions import Question, Reply, form
from dicode_mcp.tools.registry import Call, Content, ToolDef, failed, succeeded

_TEXT = {"type": "string"}
_CONFIRM = object_of(confirm={"type": "boolean"})

Ask = Callable[[Mapping[str, Question]], Awaitable[dict[str, Any]]]
Work = Callable[[Ask], Awaitable[Content]]


class MemoryJobs:
    """Runs work while ``group`` is open; the same protocol as the server's runs."""

    def __init__(self, clock: Clock, group: asyncio.TaskGroup) -> None:
        self._clock = clock
        self._group = group
        self._jobs: dict[str, Job] = {}
        self._works: dict[str, asyncio.Task[None]] = {}
        self._heard: dict[str, dict[str, Any]] = {}
        self._wake = asyncio.Condition()

    def start(self, work: Work) -> Job:
        """Begin a piece of work."""
        now = iso(self._clock.now_ms())
        job = Job(f"job-{len(self._jobs) + 1}", "working", now, now)
        self._jobs[job.id] = job
        self._works[job.id] = self._group.create_task(self._run(job.id, work))
        return job

    def close(self) -> None:
        """End all work."""
        for work in self._works.values():
            work.cancel()

    async def get(self, principal: Principal, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    async def answer(self, principal: Principal, job_id: str, replies: Mapping[str, Reply]) -> bool:
        job = self._jobs.get(job_id)
        if job is None:
            return False
        self._heard.setdefault(job_id, {}).update(replies)
        left = {name: q for name, q in job.questions.items() if name not in replies}
        self._set(job_id, questions=left)
        async with self._wake:
            self._wake.notify_all()
        return True

    async def cancel(self, principal: Principal, job_id: str) -> bool:
        work = self._works.get(job_id)
        if work is not None and not work.done():
            work.cancel()
            await asyncio.wait({work})
        return job_id in self._jobs

    async def _run(self, job_id: str, work: Work) -> None:
        async def ask(questions: Mapping[str, Question]) -> dict[str, Any]:
            self._set(job_id, status="input_required", questions=dict(questions))
            async with self._wake:
                await self._wake.wait_for(lambda: not self._jobs[job_id].questions)
            self._set(job_id, status="working")
            return self._heard[job_id]

        try:
            self._set(job_id, status="completed", result=succeeded(await work(ask)))
        except DicodeError as error:
            self._set(job_id, status="completed", result=failed(error))
        except asyncio.CancelledError:
            self._set(job_id, status="cancelled")
        except Exception as error:
            broken = t.ErrorData(code=t.INTERNAL_ERROR, message=type(error).__name__)
            self._set(job_id, status="failed", error=broken)

    def _set(self, job_id: str, **changes: Any) -> None:
        now = iso(self._clock.now_ms())
        self._jobs[job_id] = replace(self._jobs[job_id], updated_at=now, **changes)


def job_tools(jobs: MemoryJobs) -> list[ToolDef]:
    """Give the tools that work long."""

    async def greet(call: Call, args: dict[str, Any]) -> Content:
        return said(f"Hello, {args['name']}!")

    async def slow_compute(call: Call, args: dict[str, Any]) -> Content | Job:
        async def work(ask: Ask) -> Content:
            await asyncio.sleep(args.get("seconds", 0))
            return said(f"computed {args.get('label', '')}")

        return jobs.start(work) if call.takes_jobs else await work(_unasked)

    async def failing_job(call: Call, args: dict[str, Any]) -> Job:
        async def work(ask: Ask) -> Content:
            await asyncio.sleep(0.3)
            raise DicodeError(Code.CONFLICT, "this job always fails")

        return jobs.start(work)

    async def protocol_error_job(call: Call, args: dict[str, Any]) -> Job:
        async def work(ask: Ask) -> Content:
            raise RuntimeError("panic")

        return jobs.start(work)

    async def confirm_delete(call: Call, args: dict[str, Any]) -> Content | Job:
        if not call.takes_jobs:
            return said("nothing is deleted: nobody can be asked")

        async def work(ask: Ask) -> Content:
            heard = await ask({"confirm": form(f"Delete {args['filename']}?", _CONFIRM)})
            return said(f"{args['filename']}: {heard['confirm']}")

        return jobs.start(work)

    async def multi_input(call: Call, args: dict[str, Any]) -> Job:
        async def work(ask: Ask) -> Content:
            schema = object_of(name=_TEXT)
            heard = await ask({"first": form("First?", schema), "second": form("Second?", schema)})
            return said(", ".join(sorted(heard)))

        return jobs.start(work)

    async def composed(call: Call, args: dict[str, Any]) -> Job:
        replies = await call.client.ask({"user_name": form("Who?", object_of(name=_TEXT))})

        async def work(ask: Ask) -> Content:
            return said(f"Hello, {entered(replies['user_name'], 'name')}!")

        return jobs.start(work)

    slow = arguments(seconds={"type": "number"}, label=_TEXT)
    file = arguments("filename", filename=_TEXT)
    return [
        tool("greet", greet, schema=arguments("name", name=_TEXT)),
        tool("slow_compute", slow_compute, schema=slow),
        tool("failing_job", failing_job, jobs="required"),
        tool("protocol_error_job", protocol_error_job, jobs="required"),
        tool("confirm_delete", confirm_delete, schema=file),
        tool("multi_input", multi_input, jobs="required"),
        tool("test_tool_with_task", composed, jobs="required"),
    ]


async def _unasked(questions: Mapping[str, Question]) -> dict[str, Any]:
    raise AssertionError("a call without a job asks nothing")

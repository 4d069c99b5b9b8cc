"""Runs as jobs of MCP's tasks extension: a job's id is the run's id, its result run_task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mcp_types as t

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.service import Services
from dicode_mcp.service.principal import Principal
from dicode_mcp.tools.asking import ELICITED, content_of, put_as
from dicode_mcp.tools.jobs import Job, JobStatus
from dicode_mcp.tools.questions import Reply
from dicode_mcp.tools.registry import succeeded
from dicode_mcp.tools.sizes import MAX_MESSAGE, cut, fit_run


class RunJobs:
    """Looks jobs up among the runs the caller may see."""

    def __init__(self, services: Services) -> None:
        self._runs = services.runs
        self._questions = services.questions

    async def get(self, principal: Principal, job_id: str) -> Job | None:
        """Give a run as a job."""
        run = await self._find(principal, job_id)
        return job_of(run, job_id) if run else None

    async def answer(self, principal: Principal, job_id: str, replies: Mapping[str, Reply]) -> bool:
        """Answer what a run asks; what was answered elsewhere meanwhile is passed over."""
        run = await self._find(principal, job_id)
        if run is None:
            return False
        name = put_as(run, run["question"])[0] if "question" in run else ""
        reply = replies.get(name)
        if reply is not None:
            await self._pass_on(principal, run, reply)
        return True

    async def _pass_on(self, principal: Principal, run: dict[str, Any], reply: Reply) -> None:
        content = content_of(reply)
        declined = isinstance(reply, t.ElicitResult) and reply.action == "decline"
        if content is None and not declined:
            return
        try:
            await self._questions.answer(
                principal,
                run["run_id"],
                content,
                number=run["question"]["number"],
                decline=declined,
                channel=ELICITED,
            )
        except DicodeError as error:
            if error.code not in (Code.CONFLICT, Code.INVALID_PARAMS, Code.FORBIDDEN):
                raise

    async def cancel(self, principal: Principal, job_id: str) -> bool:
        """End the run."""
        run = await self._find(principal, job_id)
        if run is None:
            return False
        if not RunStatus(run["status"]).ended:
            await self._runs.cancel(principal, job_id)
        return True

    async def _find(self, principal: Principal, job_id: str) -> dict[str, Any] | None:
        try:
            return await self._runs.latest(principal, job_id)
        except DicodeError as error:
            if error.code in (Code.RUN_NOT_FOUND, Code.FORBIDDEN):
                return None
            raise


def is_over(run: dict[str, Any]) -> bool:
    """Tell whether a run has ended, and no attempt follows it."""
    return RunStatus(run["status"]).ended and "next_attempt" not in run


def job_of(run: dict[str, Any], job_id: str) -> Job:
    """Show a run as a job: the newest attempt of the run that ``job_id`` names."""
    status = _status(RunStatus(run["status"])) if is_over(run) else "working"
    if "question" in run:
        status = "input_required"
    return Job(
        id=job_id,
        status=status,
        created_at=run["created_at"],
        updated_at=run.get("finished_at") or run.get("started_at") or run["created_at"],
        message=_message(run),
        result=succeeded(fit_run(run)) if status == "completed" else None,
        questions=dict([put_as(run, run["question"])]) if status == "input_required" else {},
    )


def _message(run: dict[str, Any]) -> str:
    told = f"{run['task']}: {run['status']}"
    if "question" in run:
        return f"{told}: {cut(run['question']['message'], MAX_MESSAGE)} (answer_run answers it)"
    return told


def _status(status: RunStatus) -> JobStatus:
    if status is RunStatus.CANCELLED:
        return "cancelled"
    return "completed" if status.ended else "working"

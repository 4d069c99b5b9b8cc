"""Runs as jobs of MCP's tasks extension: a job's id is the run's id, its result run_task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.service import Services
from dicode_mcp.service.principal import Principal
from dicode_mcp.tools.jobs import Job, JobStatus
from dicode_mcp.tools.questions import Reply
from dicode_mcp.tools.registry import succeeded
from dicode_mcp.tools.sizes import fit_run


class RunJobs:
    """Looks jobs up among the runs the caller may see."""

    def __init__(self, services: Services) -> None:
        self._runs = services.runs

    async def get(self, principal: Principal, job_id: str) -> Job | None:
        """Give a run as a job."""
        run = await self._find(principal, job_id)
        return job_of(run) if run else None

    async def answer(self, principal: Principal, job_id: str, replies: Mapping[str, Reply]) -> bool:
        """Take nothing: runs ask nothing yet."""
        return await self._find(principal, job_id) is not None

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
            return await self._runs.get(principal, job_id)
        except DicodeError as error:
            if error.code in (Code.RUN_NOT_FOUND, Code.FORBIDDEN):
                return None
            raise


def job_of(run: dict[str, Any]) -> Job:
    """Show a run as a job."""
    status = _status(RunStatus(run["status"]))
    return Job(
        id=run["run_id"],
        status=status,
        created_at=run["created_at"],
        updated_at=run.get("finished_at") or run.get("started_at") or run["created_at"],
        message=f"{run['task']}: {run['status']}",
        result=succeeded(fit_run(run)) if status == "completed" else None,
    )


def _status(status: RunStatus) -> JobStatus:
    if status is RunStatus.CANCELLED:
        return "cancelled"
    return "completed" if status.ended else "working"

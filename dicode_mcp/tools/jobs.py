"""MCP's tasks extension: a long call answers with a handle that the client asks about later.

It knows the wire. What a handle stands for is a ``Jobs``; a job is what the protocol calls a task,
which here is another thing. Only clients of the era without handshake that declare the extension
get handles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import mcp_types as t
from mcp import MCPError
from mcp.server import Server
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from pydantic import Field

from dicode_mcp.service.principal import Principal
from dicode_mcp.tools.caller import Context, is_modern, principal_of
from dicode_mcp.tools.questions import Question, Reply, fitting, missing_capability, offers

EXTENSION = "io.modelcontextprotocol/tasks"
POLL_MS = 1000
TTL_MS = 3_600_000
"""How long a job can be asked about at least."""

JobStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Job:
    """A call that goes on by itself. Times are ISO 8601 with zone.

    A call that ended is ``completed`` with its result, an error result included; ``failed`` is for
    what the protocol answers with an error.
    """

    id: str
    status: JobStatus
    created_at: str
    updated_at: str
    message: str = ""
    result: t.CallToolResult | None = None
    error: t.ErrorData | None = None
    questions: Mapping[str, Question] = field(default_factory=dict[str, Question])


class Jobs(Protocol):
    """Where handles lead. An id that is not the caller's is as one that is not there."""

    async def get(self, principal: Principal, job_id: str) -> Job | None:
        """Give a job as it stands."""
        ...

    async def answer(self, principal: Principal, job_id: str, replies: Mapping[str, Reply]) -> bool:
        """Pass answers on that fit a job's questions; False when there is no such job."""
        ...

    async def cancel(self, principal: Principal, job_id: str) -> bool:
        """End a job, if it has not ended; False when there is no such job."""
        ...


class JobParams(t.RequestParams):
    """Params of ``tasks/get`` and ``tasks/cancel``."""

    task_id: str = Field(min_length=1, max_length=256)


class JobUpdateParams(JobParams):
    """Params of ``tasks/update``."""

    input_responses: dict[str, Any] = Field(default_factory=dict[str, Any])


def created(job: Job) -> dict[str, Any]:
    """Give the answer to a call that goes on as a job."""
    return {"resultType": "task", **_head(job)}


def shown(job: Job) -> dict[str, Any]:
    """Give a job whole: with its result, error or questions, as its status has them."""
    wire = {"resultType": "complete", **_head(job)}
    match job.status:
        case "completed" if job.result is not None:
            wire["result"] = _dump(job.result)
        case "failed" if job.error is not None:
            wire["error"] = _dump(job.error)
        case "input_required":
            wire["inputRequests"] = {name: _dump(q) for name, q in job.questions.items()}
        case _:
            pass
    return wire


def required() -> MCPError:
    """Give the error for a call whose only answer is a job, to a client that takes none."""
    return missing_capability(t.ClientCapabilities(extensions={EXTENSION: {}}))


class JobMethods:
    """The extension's methods over a ``Jobs``."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def add_to(self, server: Server[Any]) -> None:
        """Serve the methods and advertise the extension."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", JobParams, self._get)
        server.add_request_handler("tasks/update", JobUpdateParams, self._update)
        server.add_request_handler("tasks/cancel", JobParams, self._cancel)

    async def _get(self, ctx: Context, params: JobParams) -> dict[str, Any]:
        _admit(ctx, params)
        job = await self._jobs.get(principal_of(ctx), params.task_id)
        if job is None:
            raise _unknown()
        return shown(answerable(job, ctx.session.client_capabilities))

    async def _update(self, ctx: Context, params: JobUpdateParams) -> dict[str, Any]:
        _admit(ctx, params)
        principal = principal_of(ctx)
        job = await self._jobs.get(principal, params.task_id)
        if job is None:
            raise _unknown()
        replies = _fitting(job, params.input_responses)
        return _done(not replies or await self._jobs.answer(principal, job.id, replies))

    async def _cancel(self, ctx: Context, params: JobParams) -> dict[str, Any]:
        _admit(ctx, params)
        return _done(await self._jobs.cancel(principal_of(ctx), params.task_id))


def _admit(ctx: Context, params: JobParams) -> None:
    if not is_modern(ctx):
        raise MCPError(t.METHOD_NOT_FOUND, "Method not found", ctx.method)
    declared = ctx.session.client_capabilities or t.ClientCapabilities()
    if EXTENSION not in (declared.extensions or {}):
        raise required()
    # The SDK compares this header for its own methods only.
    if ctx.request is not None:
        header = decode_header_value(ctx.request.headers.get(MCP_NAME_HEADER))
        if header != params.task_id:
            raise MCPError(
                t.HEADER_MISMATCH,
                f"{MCP_NAME_HEADER} header does not match the request body's 'taskId' parameter",
            )


def answerable(job: Job, declared: t.ClientCapabilities | None) -> Job:
    """Give a job without questions that the client did not say it can answer: it goes on waiting.

    What it waits for stands in its message.
    """
    capable = declared or t.ClientCapabilities()
    if all(offers(capable, question) for question in job.questions.values()):
        return job
    return replace(job, status="working", questions={})


def _fitting(job: Job, given: Mapping[str, Any]) -> dict[str, Reply]:
    """Give the answers to questions that are open; anything else is passed over."""
    open_ = job.questions.items()
    found = {name: fitting(question, given[name]) for name, question in open_ if name in given}
    return {name: reply for name, reply in found.items() if reply is not None}


def _done(found: bool) -> dict[str, Any]:
    if not found:
        raise _unknown()
    return {"resultType": "complete"}


def _unknown() -> MCPError:
    return MCPError(t.INVALID_PARAMS, "Unknown taskId. It is the run_id that run_task gave.")


def _head(job: Job) -> dict[str, Any]:
    wire = {
        "taskId": job.id,
        "status": job.status,
        "createdAt": job.created_at,
        "lastUpdatedAt": job.updated_at,
        "ttlMs": TTL_MS,
        "pollIntervalMs": POLL_MS,
    }
    if job.message:
        wire["statusMessage"] = job.message
    return wire


def _dump(model: Any) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)

"""``/api/tasks``: tasks, starting them, and the runs in the orchestrator's form."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.runs.model import RunStatus
from dicode_mcp.service import Services
from dicode_mcp.service.task_api import PRIORITIES, STATUSES
from dicode_mcp.web.api_parts import (
    Kind,
    Text,
    Whole,
    Word,
    answer,
    body_of,
    idempotency_key,
    invalid,
    principal_of,
    query_of,
    word,
)

MAX_BODY = 8 * 1024 * 1024
"""Of a request that starts a run; ``server.max_body`` is asked before."""
MAX_WAIT_S = 55
STATES = ("ready", "broken", "pending_approval", "unavailable", "conflict", "paused")

_LIST: dict[str, Kind] = {
    "id": Text(),
    "query": Text(),
    "tag": Text(),
    "source": Text(),
    "status": Word(STATES),
    "limit": Whole(1, 500),
    "cursor": Text(1024),
}
_RUNS: dict[str, Kind] = {
    "limit": Whole(1, 500),
    "type": Text(),
    "status": Word(tuple(STATUSES)),
    "offset": Whole(0, 10_000),
    "cursor": Text(1024),
}
_RUN_KEYS = {"params": dict, "input": object, "priority": str}
_TRIGGER_KEYS = {"type": str, "params": dict, "config": dict, "priority": str}


class TasksApi:
    """The handlers below ``/api/tasks``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``. A task named ``runs`` is asked for by ``?id=``."""
        return [
            Route("/api/tasks", self._list),
            Route("/api/tasks/runs", self._runs),
            Route("/api/tasks/trigger", self._trigger, methods=["POST"]),
            Route("/api/tasks/{id:path}/run", self._run, methods=["POST"]),
            Route("/api/tasks/{id:path}", self._get),
        ]

    async def _list(self, request: Request) -> Response:
        principal = principal_of(request)
        asked = query_of(request, _LIST)
        task_id = asked.pop("id", None)
        if task_id is None:
            return answer(await self._services.tasks.list(principal, **asked))
        if asked:
            raise invalid("id stands alone in a query", "ask for the list without id")
        return answer(await self._services.tasks.get(principal, task_id))

    async def _get(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        return answer(await self._services.tasks.get(principal, request.path_params["id"]))

    async def _run(self, request: Request) -> Response:
        principal = principal_of(request)
        seconds = query_of(request, {"wait": Whole(0, MAX_WAIT_S)}).get("wait", 0)
        body = await body_of(request, _RUN_KEYS, most=MAX_BODY)
        priority = word(body, "priority", tuple(PRIORITIES))
        run = await self._services.runs.start(
            principal,
            request.path_params["id"],
            params=body.get("params"),
            input=body.get("input"),
            idempotency_key=idempotency_key(request),
            priority=None if priority is None else PRIORITIES[priority],
        )
        if seconds and not RunStatus(run["status"]).ended:
            run = await self._services.runs.wait(principal, run["run_id"], seconds)
        return _run_answer(run)

    async def _runs(self, request: Request) -> Response:
        asked = query_of(request, _RUNS)
        return answer(await self._services.task_api.runs(principal_of(request), **asked))

    async def _trigger(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        body = await body_of(request, _TRIGGER_KEYS, "type", most=MAX_BODY)
        if "params" in body and "config" in body:
            raise invalid("params and config are two names of one thing", "send one of them")
        begun = await self._services.task_api.trigger(
            principal,
            body["type"],
            params=body.get("params", body.get("config")),
            priority=word(body, "priority", tuple(PRIORITIES)),
            idempotency_key=idempotency_key(request),
        )
        return answer(begun, 202, location=f"/api/runs/{begun['runId']}")


def _run_answer(run: dict[str, Any]) -> Response:
    """Answer 200 with a run that has ended, 202 with one to come back for."""
    status = 200 if RunStatus(run["status"]).ended else 202
    return answer(run, status, location=f"/api/runs/{run['run_id']}")

"""``/api/runs``: one run, its log, and what may be done with it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.runs.logs import Level
from dicode_mcp.service import Services
from dicode_mcp.service.replays import Edit
from dicode_mcp.web.api_parts import (
    Kind,
    Whole,
    Word,
    answer,
    body_of,
    idempotency_key,
    invalid,
    principal_of,
    query_of,
)
from dicode_mcp.web.api_tasks import MAX_BODY, MAX_WAIT_S

MAX_LINES = 1_000

_LOGS: dict[str, Kind] = {
    "after": Whole(0, 2**53 - 1),
    "tail": Whole(1, MAX_LINES),
    "level": Word([level.label for level in Level]),
    "limit": Whole(1, MAX_LINES),
}


class RunsApi:
    """The handlers below ``/api/runs``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``."""
        post = ["POST"]
        return [
            Route("/api/runs/{run_id}", self._get),
            Route("/api/runs/{run_id}/logs", self._logs),
            Route("/api/runs/{run_id}/kill", self._kill, methods=post),
            Route("/api/runs/{run_id}/replay", self._replay, methods=post),
            Route("/api/runs/{run_id}/pin", self._pin, methods=post),
        ]

    async def _get(self, request: Request) -> Response:
        principal, run_id = principal_of(request), request.path_params["run_id"]
        asked = query_of(request, {"wait": Whole(0, MAX_WAIT_S), "given": Word(["true", "false"])})
        given = asked.get("given") == "true"
        if asked.get("wait", 0):
            run = await self._services.runs.wait(principal, run_id, asked["wait"])
            if not given:
                return answer(run)
        return answer(await self._services.runs.get(principal, run_id, given=given))

    async def _logs(self, request: Request) -> Response:
        principal = principal_of(request)
        asked = query_of(request, _LOGS)
        if "after" in asked and "tail" in asked:
            raise invalid(
                "after and tail are two ways to choose lines",
                "tail gives the newest lines; after goes on from a line you have seen",
            )
        run_id = request.path_params["run_id"]
        return answer(await self._services.runs.logs(principal, run_id, **asked))

    async def _kill(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        await body_of(request, {})
        return answer(await self._services.runs.cancel(principal, request.path_params["run_id"]))

    async def _replay(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        body = await body_of(request, {"params": dict, "input": object}, most=MAX_BODY)
        edit = Edit(body.get("params", {}), (body["input"],) if "input" in body else None)
        run = await self._services.replays.replay(
            principal,
            request.path_params["run_id"],
            edit,
            idempotency_key=idempotency_key(request),
        )
        return answer(run, 202, location=f"/api/runs/{run['run_id']}")

    async def _pin(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        body = await body_of(request, {"pinned": bool})
        run_id = request.path_params["run_id"]
        return answer(await self._services.history.pin(principal, run_id, body.get("pinned", True)))

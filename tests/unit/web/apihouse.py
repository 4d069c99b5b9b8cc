"""The JSON API on real services: a client for it, and runs that end at once as told."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from mcp.server import Server
from pagehouse import PageHouse

from dicode_mcp.executor.lineage import Origin
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.service.meter import Meter
from dicode_mcp.testing.callers import held_by, owned_by
from dicode_mcp.testing.rooms import End, InstantRunner
from dicode_mcp.testing.waiting import DEADLINE_S, running
from dicode_mcp.web.api_runs import RunsApi
from dicode_mcp.web.api_tasks import TasksApi
from dicode_mcp.web.app import WebSettings, create_app
from dicode_mcp.web.metrics import Metrics

ME = os.geteuid()


class ApiHouse(PageHouse):
    """Rooms with the API of tasks and runs."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter(self.rooms.bus)
        self.ends: dict[str, End] = {}
        self.runner = InstantRunner(
            self.rooms, lambda run: self.ends.get(run.task_id, RunStatus.SUCCESS)
        )

    @asynccontextmanager
    async def client(self, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
        """Give a program's client, while runs are executed and counted."""
        options: dict[str, Any] = {
            "own_uid": ME,
            "find_owner": owned_by(ME),
            "judge": held_by(Origin.CLIENT),
            **settings,
        }
        routes = [
            *TasksApi(self.services).routes(),
            *RunsApi(self.services).routes(),
            *Metrics(self.services, self.meter, self.rooms.registry).routes(),
        ]
        app = create_app(
            Server("test"),
            WebSettings(**options),
            readiness=lambda: self.readiness,
            routes=routes,
        )
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50_000))
        async with (
            running(self.runner.run()),
            running(self.meter.run()),
            httpx.AsyncClient(
                transport=transport, base_url="http://localhost:8080", timeout=DEADLINE_S
            ) as client,
        ):
            yield client


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem document, and give it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"]) == (status, code)
    return body

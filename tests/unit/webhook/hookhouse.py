"""Webhooks over real sockets, on real rooms, with a store in memory and runs that end at once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from mcp.server import Server

from dicode_mcp.executor.lineage import Origin
from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import Run
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.hooks import HooksService
from dicode_mcp.service.runs import RunsService
from dicode_mcp.testing.callers import held_by, owned_by
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.inputs import plain_inputs
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.secrets import NoSecrets
from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.triggers.webhook.keys import HookKeys, Secrets
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.githooks import GitHooks
from dicode_mcp.web.hooks import HookPages, Hooks, NoPages
from dicode_mcp.web.problems import MEDIA_TYPE
from dicode_mcp.web.server import HttpServer, Listening

SECRET = "s3cr3t"
ME = os.geteuid()


class NoPushes:
    """Git sources that listen for nothing."""

    async def pushed(self, source: str, headers: Any, body: bytes) -> int:
        return 0


@dataclass
class HookHouse:
    """A server with webhooks, and a client."""

    rooms: Rooms
    runner: InstantRunner
    hooks: HooksService
    audit: Audit
    where: Listening
    client: httpx.AsyncClient

    def hook(self, task_id: str, /, digest: str = "0", **trigger: Any) -> None:
        """Put a task with a webhook at ``/hooks/ID`` in force."""
        spec = {name: trigger.pop(name) for name in ("params", "timeout") if name in trigger}
        given = {"webhook": f"/hooks/{task_id}", **trigger}
        self.rooms.put(make_task(task_id, digest, folder=Path("/nowhere"), trigger=given, **spec))

    async def runs(self, task_id: str | None = None) -> list[Run]:
        return await self.rooms.runs(task_id)

    async def only_run(self) -> Run:
        (run,) = await self.runs()
        return run

    def now_s(self) -> int:
        return self.rooms.clock.now_ms() // 1000


def signed(body: bytes, secret: str = SECRET, time_s: int | None = None) -> dict[str, str]:
    """Give GitHub's header, with a covered time when one is given."""
    text = body if time_s is None else f"{time_s}.".encode() + body
    digest = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    headers = {"x-hub-signature-256": f"sha256={digest}"}
    return headers if time_s is None else {**headers, "x-dicode-timestamp": str(time_s)}


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem document, and give it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    return body


@asynccontextmanager
async def serving_hooks(
    *,
    store: Store | None = None,
    clock: FakeClock | None = None,
    ends: Any = None,
    pages: HookPages | None = None,
    starting: Callable[[], bool] = lambda: False,
    origin: Origin = Origin.CLIENT,
    max_body: int = 64 * 1024,
    secrets: Secrets | None = None,
    **settings: Any,
) -> AsyncGenerator[HookHouse]:
    """Serve webhooks while the block lasts; of each caller the kernel says: it is ``origin``."""
    rooms = Rooms(store, clock)
    runner = InstantRunner(rooms, ends)
    audit = Audit(rooms.store, rooms.clock)
    runs = RunsService(
        queue=rooms.queue,
        registry=rooms.registry,
        store=rooms.store,
        bus=rooms.bus,
        audit=audit,
        inputs=plain_inputs(rooms.store),
    )
    hooks = HooksService(
        queue=rooms.queue,
        registry=rooms.registry,
        store=rooms.store,
        audit=audit,
        clock=rooms.clock,
        keys=HookKeys(secrets or NoSecrets()),
    )
    shown = Hooks(hooks, runs, pages or NoPages(), max_body=max_body, starting=starting)
    options = WebSettings(
        own_uid=ME,
        find_owner=owned_by(ME),
        judge=held_by(origin),
        max_body=max_body,
        **settings,
    )
    pushes: Any = NoPushes()
    app = create_app(
        Server("test"),
        options,
        readiness=lambda: Readiness.READY,
        routes=[*GitHooks(pushes).routes(), *shown.routes()],
    )
    running = asyncio.create_task(runner.run())
    try:
        async with (
            HttpServer(app, port=0).listening() as where,
            httpx.AsyncClient(base_url=where.url, timeout=DEADLINE_S, trust_env=False) as client,
        ):
            yield HookHouse(rooms, runner, hooks, audit, where, client)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

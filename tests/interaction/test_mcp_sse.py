"""The older SSE transport as raw HTTP: guards, limits, bad messages, and a stop in time."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from mcp.server import Server
from mcphouse import VERSION, House
from starlette.applications import Starlette
from starlette.requests import Request

from dicode_mcp.errors import DicodeError
from dicode_mcp.service.principal import local_principal
from dicode_mcp.testing.waiting import DEADLINE_S, until
from dicode_mcp.tools.hub import Hub
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.problems import on_dicode_error
from dicode_mcp.web.server import HttpServer
from dicode_mcp.web.sse import SseTimes, SseTransport

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}

pytestmark = pytest.mark.skipif(
    not Path("/proc/net/tcp").exists(), reason="keyless HTTP needs the kernel's table of sockets"
)


class Stream:
    """An open event stream: where its messages go, and what it says."""

    def __init__(self, client: httpx.AsyncClient, response: httpx.Response) -> None:
        self.response = response
        self._client = client
        self._lines = response.aiter_lines()
        self.url = ""

    async def opened(self) -> Stream:
        """Read the first event, which names the path of the messages."""
        event, self.url = await self.read()
        assert event == "endpoint"
        return self

    async def read(self) -> tuple[str, str]:
        """Give the next event: its name and its data."""
        found = {"event": "", "data": ""}
        async with asyncio.timeout(DEADLINE_S):
            async for line in self._lines:
                name, _, text = line.partition(": ")
                if not line and found["event"]:
                    break
                found[name] = text
        return found["event"], found["data"]

    async def post(self, body: bytes, **headers: str) -> httpx.Response:
        """Send one message."""
        return await self._client.post(
            self.url, content=body, headers={"content-type": "application/json", **headers}
        )

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool without a handshake and give its answer."""
        assert (await self.post(request(tool, **arguments))).status_code == 202
        return json.loads((await self.read())[1])


def request(tool: str, /, **arguments: Any) -> bytes:
    """Give the message that calls a tool in the era without handshake."""
    params = {"name": tool, "arguments": arguments, "_meta": META}
    return json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    ).encode()


@pytest.fixture
async def web(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base_url, timeout=DEADLINE_S, trust_env=False) as client:
        yield client


@asynccontextmanager
async def streaming(client: httpx.AsyncClient, **headers: str) -> AsyncGenerator[Stream]:
    async with client.stream("GET", "/sse", headers=headers) as response:
        assert response.status_code == 200
        yield await Stream(client, response).opened()


async def test_a_message_is_answered_on_the_stream(web: httpx.AsyncClient) -> None:
    async with streaming(web) as stream:
        answer = await stream.call("get_status")
    assert answer["result"]["structuredContent"]["version"] == VERSION
    assert stream.response.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"authorization": "Bearer dck_wrong"},
    ],
)
async def test_a_foreign_caller_gets_no_stream_and_posts_no_message(
    web: httpx.AsyncClient, house: House, headers: dict[str, str]
) -> None:
    refused = await web.get("/sse", headers=headers)
    assert refused.status_code in (401, 403)
    async with streaming(web) as stream:
        refused = await stream.post(request("run_task", id="hello"), **headers)
        assert refused.status_code in (401, 403)
        assert not await house.store.count_runs()


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, -32700),
        (b"\xff\xfe", {}, 400, -32700),
        (b'{"jsonrpc": "2.0", "id": 7}', {}, 400, -32600),
        (b'[{"jsonrpc": "2.0", "id": 7, "method": "ping"}]', {}, 400, -32600),
        (b"[" * 100_000, {}, 400, -32700),
        (b"{}", {"content-type": "text/plain"}, 415, -32600),
    ],
)
async def test_what_is_no_message_is_refused_without_its_text_and_the_session_goes_on(
    web: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int, code: int
) -> None:
    async with streaming(web) as stream:
        refused = await stream.post(body, **headers)
        assert refused.status_code == status
        assert refused.json()["error"]["code"] == code
        assert "result" in await stream.call("get_status")


async def test_a_message_over_4_mib_is_refused(web: httpx.AsyncClient) -> None:
    async with streaming(web) as stream:
        refused = await stream.post(b" " * (4 * 1024 * 1024 + 1))
        assert refused.status_code == 413
        assert "result" in await stream.call("get_status")


@pytest.mark.parametrize("session", ["", "?session_id=", "?session_id=" + "0" * 32])
async def test_a_message_to_no_session_is_told_to_open_one(
    web: httpx.AsyncClient, session: str
) -> None:
    refused = await web.post(
        "/sse/messages" + session,
        content=b"{}",
        headers={"content-type": "application/json"},
    )
    assert refused.status_code == 404
    assert "open /sse" in refused.json()["hint"]


async def test_a_session_is_gone_with_its_stream(web: httpx.AsyncClient) -> None:
    async with streaming(web) as stream:
        url = stream.url
    gone = asyncio.Event()
    while not gone.is_set():
        answer = await web.post(
            url, content=request("get_status"), headers={"content-type": "application/json"}
        )
        if answer.status_code == 404:
            gone.set()


async def test_a_head_request_opens_no_stream(web: httpx.AsyncClient) -> None:
    answer = await web.head("/sse")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"


async def test_a_stop_ends_open_streams_of_both_eras_within_three_seconds(
    server: Server[Any], hub: Hub
) -> None:
    app = create_app(server, WebSettings(own_uid=os.geteuid()), readiness=lambda: Readiness.READY)
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "raw", "version": "1"},
        },
    }
    listen = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "subscriptions/listen",
        "params": {"notifications": {"toolsListChanged": True}, "_meta": META},
    }
    timeout = httpx.Timeout(DEADLINE_S)
    async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
        async with HttpServer(app, port=0, on_stop=hub.close).listening() as where:
            client.base_url = where.url
            legacy, modern, idle = [
                await Stream(
                    client, await client.send(client.build_request("GET", "/sse"), stream=True)
                ).opened()
                for _ in range(3)
            ]
            await legacy.post(json.dumps(hello).encode())
            assert "serverInfo" in (await legacy.read())[1]
            await modern.post(json.dumps(listen).encode())
            assert "acknowledged" in (await modern.read())[1]
            began = monotonic()
        took = monotonic() - began
        assert '"result"' in (await modern.read())[1]
        for stream in (legacy, modern, idle):
            assert await stream.read() == ("", "")
            await stream.response.aclose()
    assert took < 3.5


@asynccontextmanager
async def bare(server: Server[Any], **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve the transport alone; a header says who the caller is."""
    transport = SseTransport(server, **options)

    class Named:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                actor = Request(scope).headers.get("x-actor", "local")
                scope["state"]["principal"] = local_principal("mcp", actor)
            await self._app(scope, receive, send)

    app = Starlette(
        routes=transport.routes(),
        lifespan=lambda _: transport.run(),
        exception_handlers={DicodeError: on_dicode_error},
    )
    app.add_middleware(Named)
    async with (
        HttpServer(app, port=0).listening() as where,
        httpx.AsyncClient(base_url=where.url, timeout=DEADLINE_S, trust_env=False) as client,
    ):
        yield client


async def test_another_callers_session_is_not_found(server: Server[Any]) -> None:
    async with bare(server) as client, streaming(client, **{"x-actor": "ann"}) as stream:
        stolen = await stream.post(request("get_status"), **{"x-actor": "bob"})
        assert stolen.status_code == 404
        own = await stream.post(request("get_status"), **{"x-actor": "ann"})
        assert own.status_code == 202


async def test_one_stream_too_many_is_told_so(server: Server[Any]) -> None:
    async with bare(server, max_sessions=1) as client, streaming(client):
        refused = await client.get("/sse")
        assert refused.status_code == 429
        assert "already serves 1 event streams" in refused.json()["detail"]


async def test_a_client_that_does_not_read_its_stream_is_told_so_until_it_does(
    server: Server[Any],
) -> None:
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    body = json.dumps(ask).encode()
    async with bare(server, times=SseTimes(stall_s=0.2)) as client, streaming(client) as stream:
        taken = 0
        while (answer := await stream.post(body)).status_code == 202:
            taken += 1
            assert taken < 5_000
        assert answer.status_code == 429
        assert "not being read" in answer.json()["detail"]
        for _ in range(taken):
            assert "run_task" in (await stream.read())[1]
        assert (await stream.post(body)).status_code == 202


async def test_a_silent_stream_gives_signs_of_life(server: Server[Any]) -> None:
    async with bare(server, times=SseTimes(ping_s=0.05)) as client:
        async with client.stream("GET", "/sse") as response:
            lines = response.aiter_lines()
            async with asyncio.timeout(DEADLINE_S):
                pings = [line async for line in _until_pings(lines, 2)]
    assert len(pings) == 2


async def _until_pings(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith(": ping"):
            yield line
            count -= 1
        if not count:
            return


async def test_losing_the_stream_leaves_the_run_alive(web: httpx.AsyncClient, house: House) -> None:
    async with streaming(web) as stream:
        await stream.post(request("run_task", id="slow"))
        await until(lambda: house.started.is_set())
    async with streaming(web) as stream:
        run = await stream.call("get_run", run_id=house.slow_run)
        assert run["result"]["structuredContent"]["status"] == "running"
        house.gate.set()
        run = await stream.call("get_run", run_id=house.slow_run, wait_seconds=20)
    assert run["result"]["structuredContent"]["status"] == "success"

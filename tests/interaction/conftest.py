"""One server, reached in every way a client can reach it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.server import Server
from mcphouse import VERSION, House, Opening, SocketTransport, open_house

from dicode_mcp.service.events import EventsService
from dicode_mcp.service.principal import local_principal
from dicode_mcp.testing.callers import judge_outsider
from dicode_mcp.tools.hub import Hub
from dicode_mcp.tools.server import create_mcp_server
from dicode_mcp.tools.socket import McpSocket
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.server import HttpServer

MODERN = "2026-07-28"
_NEEDS = {
    "memory": "server",
    "socket": "socket_path",
    "stdio": "socket_path",
    "http": "base_url",
    "sse": "base_url",
}
"""The fixture that serves each transport."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncGenerator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture
async def hub(house: House) -> AsyncGenerator[Hub]:
    events = EventsService(bus=house.bus, store=house.store, clock=house.clock, epoch="test")
    made = Hub(house.bus, gather_s=0.05, find_run=events.run_for)
    running = asyncio.create_task(made.run())
    yield made
    made.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def server(house: House, hub: Hub) -> Server[Any]:
    return create_mcp_server(house.services, hub, version=VERSION, principal=local_principal("mcp"))


@pytest.fixture
async def socket_path(server: Server[Any], tmp_path: Path) -> AsyncGenerator[Path]:
    path = tmp_path / "dicode.sock"
    async with McpSocket(server, version=VERSION, judge=judge_outsider).listening(path):
        yield path


@pytest.fixture
async def base_url(server: Server[Any], hub: Hub) -> AsyncGenerator[str]:
    app = create_app(server, WebSettings(own_uid=os.geteuid()), readiness=lambda: Readiness.READY)
    async with HttpServer(app, port=0, on_stop=hub.close).listening() as where:
        yield where.url


@pytest.fixture(params=["memory", "socket", "stdio", "http", "sse"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["legacy", MODERN])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def open_by(request: pytest.FixtureRequest) -> Callable[[str, str], Opening]:
    """Give, for a transport and an era, what opens a client."""

    def target(transport: str) -> Any:
        where: Any = request.getfixturevalue(_NEEDS[transport])
        match transport:
            case "socket":
                return SocketTransport(where)
            case "stdio":
                return byte_pipe(where.parent)
            case "http":
                return f"{where}/mcp"
            case "sse":
                return event_stream(f"{where}/sse")
            case _:
                return where

    def by(transport: str, mode: str) -> Opening:
        @asynccontextmanager
        async def opening(**options: Any) -> AsyncGenerator[Client]:
            async with Client(target(transport), mode=mode, **options) as client:
                yield client

        return opening

    return by


@pytest.fixture
def connect(
    transport: str,
    mode: str,
    open_by: Callable[[str, str], Opening],
    request: pytest.FixtureRequest,
) -> Opening:
    """Open a client over the test's transport and era."""
    # Asynchronous fixtures cannot be asked for once the test's body runs.
    request.getfixturevalue(_NEEDS[transport])
    return open_by(transport, mode)


@asynccontextmanager
async def event_stream(url: str) -> AsyncGenerator[Any]:
    """Give the SDK's SSE client, which trips over a message that comes while it leaves."""
    try:
        async with sse_client(url) as streams:
            yield streams
    except* anyio.BrokenResourceError:
        pass


def byte_pipe(data_dir: Path) -> StdioServerParameters:
    """Give `dicode mcp` as a client starts it; the server behind the socket is the test's."""
    command = ["-m", "dicode_mcp.cli.main", "mcp", "--data-dir", str(data_dir)]
    return StdioServerParameters(command=sys.executable, args=command)

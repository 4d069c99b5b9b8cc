"""One server, reached in every way a client can reach it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import mcp_types as t
import pytest
from mcp import Client
from mcp.server import Server
from mcp.shared.message import SessionMessage
from mcphouse import VERSION, House, Opening, open_house

from dicode_mcp.service.principal import local_principal
from dicode_mcp.tools.hub import Hub
from dicode_mcp.tools.server import create_mcp_server
from dicode_mcp.tools.socket import McpSocket
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.server import HttpServer

MODERN = "2026-07-28"


class SocketTransport:
    """A client's side of the unix socket, as the SDK wants transports to be."""

    def __init__(self, path: Path, preamble: bytes | None = None) -> None:
        self._path = path
        self._preamble = preamble

    async def __aenter__(self) -> tuple[Any, Any]:
        reader, self._writer = await asyncio.open_unix_connection(self._path, limit=2**24)
        if self._preamble:
            self._writer.write(self._preamble)
        send, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](100)
        outgoing, take = anyio.create_memory_object_stream[SessionMessage](100)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read, reader, send)
        self._group.start_soon(self._write, take)
        return incoming, outgoing

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        self._writer.close()

    async def _read(self, reader: asyncio.StreamReader, send: Any) -> None:
        async with send:
            while line := await reader.readline():
                message = t.jsonrpc_message_adapter.validate_json(line, by_name=False)
                await send.send(SessionMessage(message))

    async def _write(self, take: Any) -> None:
        async with take:
            async for item in take:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                self._writer.write(text.encode() + b"\n")
                await self._writer.drain()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncGenerator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture
async def hub(house: House) -> AsyncGenerator[Hub]:
    made = Hub(house.bus, gather_s=0.05)
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
    async with McpSocket(server, version=VERSION).listening(path):
        yield path


@pytest.fixture
async def base_url(server: Server[Any], hub: Hub) -> AsyncGenerator[str]:
    app = create_app(server, WebSettings(own_uid=os.geteuid()), readiness=lambda: Readiness.READY)
    async with HttpServer(app, port=0, on_stop=hub.close).listening() as where:
        yield where.url


@pytest.fixture(params=["memory", "socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["legacy", MODERN])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def connect(
    transport: str, mode: str, server: Server[Any], request: pytest.FixtureRequest
) -> Opening:
    """Open a client over the test's transport and era."""
    target: Any = server
    if transport == "socket":
        path = request.getfixturevalue("socket_path")
    elif transport == "http":
        target = request.getfixturevalue("base_url") + "/mcp"

    @asynccontextmanager
    async def opening(**options: Any) -> AsyncGenerator[Client]:
        reached = SocketTransport(path) if transport == "socket" else target
        async with Client(reached, mode=mode, **options) as client:
            yield client

    return opening

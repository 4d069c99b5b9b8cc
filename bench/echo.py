"""The floor of every MCP call: one echo tool on the SDK's low-level server, on both transports.

    python -m bench.echo SOCKET

Prints its HTTP port once both listen, and serves until it is ended. Nothing of ours is in it: the
line framing is the shortest that works, without limits, deadlines or a look at who calls.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import mcp_types as t
import uvicorn
from mcp.server import Server
from mcp.server.runner import serve_dual_era_loop
from mcp.shared.message import SessionMessage

from bench.house import stop
from bench.row import Unmeasurable

_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}}


async def _list(ctx: Any, params: Any) -> t.ListToolsResult:
    return t.ListToolsResult(tools=[t.Tool(name="echo", input_schema=_SCHEMA)])


async def _call(ctx: Any, params: t.CallToolRequestParams) -> t.CallToolResult:
    value = params.arguments or {}
    text = t.TextContent(type="text", text=json.dumps(value))
    return t.CallToolResult(content=[text], structured_content=value)


class _Reader:
    """Messages of one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def receive(self) -> SessionMessage | Exception:
        if not (line := await self._reader.readline()):
            raise anyio.EndOfStream
        return SessionMessage(t.jsonrpc_message_adapter.validate_json(line, by_name=False))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        pass


class _Writer:
    """Answers to one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, item: SessionMessage, /) -> None:
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        self._writer.write(line.encode() + b"\n")
        await self._writer.drain()

    async def aclose(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        pass


async def _serve(path: str) -> None:
    server: Server[Any] = Server(
        "echo", on_list_tools=_list, on_call_tool=_call, get_tool_input_schema=lambda name: _SCHEMA
    )

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_dual_era_loop(server, _Reader(reader), _Writer(writer), lifespan_state={})
        writer.close()

    app = server.streamable_http_app()
    http = uvicorn.Server(
        uvicorn.Config(app, port=0, http="h11", ws="none", log_config=None, access_log=False)
    )
    async with asyncio.TaskGroup() as group, await asyncio.start_unix_server(talk, path):
        serving = group.create_task(http.serve())
        while not http.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        print(http.servers[0].sockets[0].getsockname()[1], flush=True)
        await serving


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo server that answers."""

    socket: Path
    port: int
    pid: int


@contextmanager
def echoing(room: Path) -> Generator[Echo]:
    """Keep an echo server while the block lasts."""
    path = room / "echo.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.echo", str(path)],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise Unmeasurable("the echo server did not start")
            yield Echo(path, int(port), process.pid)
        finally:
            stop(process)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))

"""Calls of a live server as its owner at a terminal, and as somebody who has a key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from liveserver import Live

META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
JOBS: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
"""The capabilities of a client that takes jobs."""
REFUSALS = frozenset(
    {"forbidden", "task_not_found", "run_not_found", "source_not_found", "unauthenticated"}
)
"""What a caller gets who may not: either the refusal, or that there is no such thing."""


async def over_the_socket(
    live: Live, method: str, params: Mapping[str, Any], preamble: Mapping[str, Any]
) -> dict[str, Any]:
    """Send one request after a preamble; gives its result."""
    reader, writer = await asyncio.open_unix_connection(live.data / "dicode.sock", limit=2**24)
    try:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        writer.write(json.dumps({"dicode": dict(preamble)}).encode() + b"\n")
        writer.write(json.dumps(message).encode() + b"\n")
        async with asyncio.timeout(60):
            answer = json.loads(await reader.readline())
        assert "result" in answer, answer
        return answer["result"]
    finally:
        writer.close()


async def owner(live: Live, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool as the CLI does."""
    params = {"name": tool, "arguments": arguments}
    result = await over_the_socket(live, "tools/call", params, {"client": "cli"})
    return result["structuredContent"]


async def make_key(live: Live, name: str, *scopes: str) -> str:
    """Make a key as the owner."""
    made = await owner(live, "keys_create", name=name, scopes=list(scopes))
    assert "key" in made, made
    return str(made["key"])


class Holder:
    """Somebody who has a key and calls over HTTP; None has none."""

    def __init__(self, client: httpx.AsyncClient, key: str | None) -> None:
        self.client = client
        self.headers = {} if key is None else {"authorization": f"Bearer {key}"}

    async def send(self, method: str, **params: Any) -> httpx.Response:
        """Send one request of MCP; gives the answer as it comes."""
        name = params.get("name") or params.get("uri") or params.get("taskId")
        named = {"mcp-name": str(name)} if name else {}
        headers = {
            **self.headers,
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": method,
            **named,
        }
        able = JOBS if method.startswith("tasks/") else dict[str, Any]()
        meta = {**META, "io.modelcontextprotocol/clientCapabilities": able}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        return await self.client.post("/mcp", json=message, headers=headers)

    async def answer(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one request of MCP; gives the answer's message, an error too."""
        answer = await self.send(method, **params)
        # A call that takes long is answered as a stream, whose last event is the answer.
        lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        return json.loads(lines[-1].removeprefix("data: ") if lines else answer.text)

    async def mcp(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one request of MCP; gives its result."""
        shown = await self.answer(method, **params)
        assert "result" in shown, shown
        return shown["result"]

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; gives its structured result, errors included."""
        return (await self.mcp("tools/call", name=tool, arguments=arguments))["structuredContent"]

    async def tools(self) -> set[str]:
        """Name the tools that are listed."""
        return {tool["name"] for tool in (await self.mcp("tools/list"))["tools"]}

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request of another kind."""
        headers = {**self.headers, **options.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **options)


def code_of(result: Mapping[str, Any]) -> str:
    """Give the code of an answer that is an error, or nothing."""
    # A failed run has an error too, and is an answer.
    if "run_id" in result or "error" not in result:
        return ""
    return str(result["error"]["code"])


@asynccontextmanager
async def calling(live: Live) -> AsyncGenerator[httpx.AsyncClient]:
    """Give a client of the server's HTTP side."""
    assert live.server.url is not None
    async with httpx.AsyncClient(base_url=live.server.url, timeout=60, trust_env=False) as client:
        yield client

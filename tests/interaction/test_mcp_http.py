"""Streamable HTTP as the server really serves it: guards on, streams open, stops in time."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.server import Server
from mcphouse import VERSION, House

from dicode_mcp.testing.waiting import DEADLINE_S, until
from dicode_mcp.tools.hub import Hub
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.server import HttpServer

MODERN = "2026-07-28"

pytestmark = pytest.mark.skipif(
    not Path("/proc/net/tcp").exists(), reason="keyless HTTP needs the kernel's table of sockets"
)


def modern(method: str, mirrored: str = "", /, **params: Any) -> tuple[dict[str, str], bytes]:
    """Give headers and body of one request without handshake."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": method,
    }
    if mirrored:
        headers["mcp-name"] = mirrored
    return headers, json.dumps(body).encode()


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"authorization": "Bearer dck_wrong"},
    ],
)
async def test_a_foreign_call_starts_no_run(
    base_url: str, house: House, headers: dict[str, str]
) -> None:
    good, body = modern("tools/call", "run_task", name="run_task", arguments={"id": "hello"})
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(base_url + "/mcp", content=body, headers={**good, **headers})
        assert answer.status_code in (401, 403)
        assert answer.headers["content-type"] == "application/problem+json"
        assert not (await house.store.count_runs())
        answer = await client.post(base_url + "/mcp", content=body, headers=good)
    assert answer.json()["result"]["structuredContent"]["status"] == "success"


async def test_a_single_call_needs_no_handshake(base_url: str) -> None:
    headers, body = modern("tools/call", "get_status", name="get_status", arguments={})
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(base_url + "/mcp", content=body, headers=headers)
    assert answer.json()["result"]["structuredContent"]["version"] == VERSION


async def test_a_dropped_connection_leaves_the_run_alive(base_url: str, house: House) -> None:
    headers, body = modern("tools/call", "run_task", name="run_task", arguments={"id": "slow"})
    async with httpx.AsyncClient(trust_env=False) as client:
        call = asyncio.create_task(
            client.post(base_url + "/mcp", content=body, headers=headers, timeout=DEADLINE_S)
        )
        await until(lambda: house.started.is_set())
        call.cancel()
    async with Client(base_url + "/mcp", mode=MODERN) as client:
        ask = {"run_id": house.slow_run}
        run = (await client.call_tool("get_run", ask)).structured_content
        assert run["status"] == "running"
        house.gate.set()
        run = (await client.call_tool("get_run", {**ask, "wait_seconds": 20})).structured_content
    assert run["status"] == "success"


async def test_a_stop_ends_listen_streams_and_sessions_within_three_seconds(
    server: Server[Any], hub: Hub
) -> None:
    app = create_app(server, WebSettings(own_uid=os.geteuid()), readiness=lambda: Readiness.READY)
    headers, listen = modern("subscriptions/listen", notifications={"toolsListChanged": True})
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
    accept = {"accept": "application/json, text/event-stream"}
    timeout = httpx.Timeout(DEADLINE_S)
    async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
        async with HttpServer(app, port=0, on_stop=hub.close).listening() as where:
            url = where.url + "/mcp"
            opened = await client.post(url, json=hello, headers=accept)
            session = {"mcp-session-id": opened.headers["mcp-session-id"]}
            modern_stream = await client.send(
                client.build_request("POST", url, content=listen, headers=headers), stream=True
            )
            legacy_stream = await client.send(
                client.build_request("GET", url, headers={**accept, **session}), stream=True
            )
            assert (modern_stream.status_code, legacy_stream.status_code) == (200, 200)
            began = monotonic()
        took = monotonic() - began
        ended = (await modern_stream.aread()).decode()
        await legacy_stream.aclose()
    assert took < 3.5
    assert "subscriptions/acknowledged" in ended
    assert '"result"' in ended

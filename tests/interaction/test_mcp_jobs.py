"""The tasks extension: a long run is a job that the client asks about, over HTTP and the socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcphouse import House

from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.tools.jobs import EXTENSION

MODERN = "2026-07-28"
TAKES_JOBS: dict[str, Any] = {"extensions": {EXTENSION: {}}}

Send = Callable[..., Awaitable[dict[str, Any]]]
"""Sends one request: method, params, the client's capabilities; gives the whole answer."""


def message(method: str, params: dict[str, Any], capabilities: dict[str, Any]) -> bytes:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return json.dumps(body).encode()


@pytest.fixture(params=["http", "socket"])
def send(request: pytest.FixtureRequest) -> Send:
    if request.param == "http":
        base_url: str = request.getfixturevalue("base_url")

        async def by_http(method: str, params: dict[str, Any], named: str = "") -> dict[str, Any]:
            return (await post(base_url, method, params, named=named)).json()

        return by_http
    path: Path = request.getfixturevalue("socket_path")

    async def by_socket(method: str, params: dict[str, Any], named: str = "") -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(path, limit=2**24)
        writer.write(message(method, params, TAKES_JOBS) + b"\n")
        async with asyncio.timeout(DEADLINE_S):
            line = await reader.readline()
        writer.close()
        return json.loads(line)

    return by_socket


async def post(
    base_url: str,
    method: str,
    params: dict[str, Any],
    *,
    named: str = "",
    capabilities: dict[str, Any] = TAKES_JOBS,
) -> httpx.Response:
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": method,
        "mcp-name": named or str(params.get("name") or params.get("taskId")),
    }
    async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as client:
        body = message(method, params, capabilities)
        return await client.post(base_url + "/mcp", content=body, headers=headers)


def run(task: str, **arguments: Any) -> dict[str, Any]:
    return {"name": "run_task", "arguments": {"id": task, **arguments}}


async def test_a_long_run_is_a_job_whose_result_is_there_at_its_end(
    send: Send, house: House
) -> None:
    job = (await send("tools/call", run("slow")))["result"]
    assert (job["resultType"], job["status"]) == ("task", "working")
    assert job["taskId"] == house.slow_run
    assert "content" not in job
    shown = (await send("tasks/get", {"taskId": job["taskId"]}))["result"]
    assert (shown["status"], "result" in shown) == ("working", False)
    house.gate.set()
    while shown["status"] == "working":
        shown = (await send("tasks/get", {"taskId": job["taskId"]}))["result"]
    assert shown["status"] == "completed"
    assert shown["result"]["structuredContent"]["return_value"] == "done"
    assert shown["result"]["content"][0]["type"] == "text"


async def test_a_quick_run_is_answered_at_once(send: Send) -> None:
    result = (await send("tools/call", run("hello")))["result"]
    assert result["resultType"] == "complete"
    assert result["structuredContent"]["status"] == "success"


async def test_a_failed_run_is_a_completed_job_with_the_error_in_its_result(send: Send) -> None:
    failed = (await send("tools/call", run("fails")))["result"]["structuredContent"]
    job = (await send("tasks/get", {"taskId": failed["run_id"]}))["result"]
    assert job["status"] == "completed"
    assert job["result"]["structuredContent"]["error"]["line"] == 7


async def test_cancelling_a_job_ends_its_run(send: Send, house: House) -> None:
    job = (await send("tools/call", run("slow")))["result"]["taskId"]
    assert (await send("tasks/cancel", {"taskId": job}))["result"]["resultType"] == "complete"
    shown = (await send("tasks/get", {"taskId": job}))["result"]
    assert shown["status"] == "cancelled"
    again = (await send("tasks/cancel", {"taskId": job}))["result"]
    assert "status" not in again


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_an_unknown_job_is_a_protocol_error(send: Send, method: str) -> None:
    params: dict[str, Any] = {"taskId": "nope", "inputResponses": {}}
    assert (await send(method, params))["error"]["code"] == -32602


async def test_answers_that_nobody_asked_for_are_acknowledged(send: Send, house: House) -> None:
    job = (await send("tools/call", run("slow")))["result"]["taskId"]
    params = {"taskId": job, "inputResponses": {"x": {"y": 1}}}
    assert (await send("tasks/update", params))["result"]["resultType"] == "complete"


async def test_a_client_without_the_extension_gets_results_and_no_jobs(
    base_url: str, house: House
) -> None:
    house.gate.set()
    call = await post(base_url, "tools/call", run("slow"), capabilities={})
    result = call.json()["result"]
    assert result["resultType"] == "complete"
    assert result["structuredContent"]["status"] == "success"
    run_id = result["structuredContent"]["run_id"]
    refused = await post(base_url, "tasks/get", {"taskId": run_id}, capabilities={})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["code"] == -32021
    assert EXTENSION in error["data"]["requiredCapabilities"]["extensions"]


async def test_a_header_that_names_another_job_is_refused(base_url: str) -> None:
    done = (await post(base_url, "tools/call", run("hello"))).json()["result"]
    job = done["structuredContent"]["run_id"]
    refused = await post(base_url, "tasks/get", {"taskId": job}, named="another")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32020)

"""The MCP Inspector's command line against the server itself: every transport, both eras."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from node_tools import command, environment
from realserver import RealServer

pytestmark = pytest.mark.slow

CALL_S = 60.0
ERAS = {"legacy": "2025-11-25", "modern": "2026-07-28"}
TOOL_FAILED = 5


def servers(real: RealServer) -> dict[str, dict[str, Any]]:
    """Give the Inspector's configuration: each transport in each era by name."""
    pipe = ["-m", "dicode_mcp.cli.main", "mcp", "--data-dir", str(real.data_dir)]
    transports: dict[str, dict[str, Any]] = {
        "stdio": {"command": sys.executable, "args": pipe},
        "http": {"type": "http", "url": f"{real.url}/mcp"},
        "sse": {"type": "sse", "url": f"{real.url}/sse"},
    }
    return {
        f"{transport}-{era}": {**how, "protocolEra": era}
        for transport, how in transports.items()
        for era in ERAS
    }


class Inspector:
    """The Inspector with one configuration."""

    def __init__(self, folder: Path, real: RealServer) -> None:
        self._config = folder / "inspector.json"
        self._config.write_text(json.dumps({"mcpServers": servers(real)}))
        self._home = folder

    async def run(self, server: str, method: str, *options: str) -> tuple[int, Any]:
        """Give the exit code and what it printed (on failure: its last line of errors)."""
        line = ["--cli", "--config", str(self._config), "--server", server, "--method", method]
        process = await asyncio.create_subprocess_exec(
            *command("@modelcontextprotocol/inspector", *line, *options, "--format", "json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **environment(),
                "HOME": str(self._home),
                "MCP_INSPECTOR_SECRET_STORE": "memory",
            },
        )
        async with asyncio.timeout(CALL_S):
            out, errors = await process.communicate()
        code = process.returncode or 0
        text = out.decode() or errors.decode().strip().rpartition("\n")[2]
        assert text, (server, method, code)
        return code, json.loads(text)

    async def good(self, server: str, method: str, *options: str) -> Any:
        """Give the result of a call that must succeed."""
        code, printed = await self.run(server, method, *options)
        assert code == 0, (server, method, printed)
        return printed["result"]


async def test_the_inspector_lists_and_calls_tools_over_every_transport_in_both_eras(
    real_server: RealServer, tmp_path: Path
) -> None:
    inspector = Inspector(tmp_path, real_server)
    room = asyncio.Semaphore(2)

    async def try_out(server: str) -> None:
        async with room:
            hello = await inspector.good(server, "initialize")
            assert hello["serverInfo"]["name"] == "dicode"
            assert hello["protocolVersion"] == ERAS[server.partition("-")[2]]
            listed = await inspector.good(server, "tools/list")
            assert {"run_task", "list_tasks"} <= {tool["name"] for tool in listed["tools"]}
            arguments = json.dumps({"id": "hello", "params": {"who": server}})
            run = await inspector.good(
                server, "tools/call", "--tool-name", "run_task", "--tool-args-json", arguments
            )
            assert run["structuredContent"]["return_value"] == server

    async with asyncio.TaskGroup() as group:
        for server in servers(real_server):
            group.create_task(try_out(server))


async def test_the_inspector_reads_resources_prompts_and_refusals(
    real_server: RealServer, tmp_path: Path
) -> None:
    inspector = Inspector(tmp_path, real_server)
    read = await inspector.good("sse-legacy", "resources/read", "--uri", "dicode://tasks/hello")
    assert json.loads(read["contents"][0]["text"])["id"] == "hello"
    prompts = await inspector.good("stdio-modern", "prompts/list")
    assert "debug-a-failed-run" in {prompt["name"] for prompt in prompts["prompts"]}
    wrong = ("--tool-name", "run_task", "--tool-args-json", '{"id": "helo"}')
    code, printed = await inspector.run("http-modern", "tools/call", *wrong)
    assert code == TOOL_FAILED
    assert "hello" in json.dumps(printed)

"""A whole server in this process, on a folder of tasks, and a client on its socket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dicode_mcp.clock import SystemClock
from dicode_mcp.config import Config, ExecutionConfig, ServerConfig, SourceConfig
from dicode_mcp.daemon import Server
from dicode_mcp.tools.server import ALL_TOOLS

_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}

MANUAL = "runtime: python\ntrigger: {manual: true}\n"


class Live:
    """A running server: tasks to write, tools to call."""

    def __init__(self, root: Path, server: Server) -> None:
        self.tasks = root / "tasks"
        self.data = root / "data"
        self.server = server

    def write(self, name: str, script: str, manifest: str = MANUAL) -> None:
        """Write a task's folder; ``sync`` takes it up."""
        write_task(self.tasks, name, script, manifest)

    async def sync(self) -> None:
        """Look at the folder now."""
        await self.call("sync_source", source="tasks")

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool as an agent does; gives its structured result, errors included."""
        params = {"name": tool, "arguments": arguments, "_meta": _META}
        answer = await self.request("tools/call", params)
        assert "result" in answer, answer
        return fitting(tool, answer["result"]["structuredContent"])

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request on a connection of its own; gives the whole answer."""
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        path = str(self.data / "dicode.sock")
        reader, writer = await asyncio.open_unix_connection(path, limit=2**24)
        try:
            writer.write(line.encode() + b"\n")
            async with asyncio.timeout(60):
                return json.loads(await reader.readline())
        finally:
            writer.close()

    async def answer(self, tool: str, reply: Mapping[str, Any], **arguments: Any) -> Any:
        """Call a tool as a client whose user gives ``reply`` to whatever is asked.

        Gives the structured result, and the questions as they were put.
        """
        capabilities: dict[str, Any] = {"elicitation": {"form": {}}}
        meta: dict[str, Any] = {**_META, "io.modelcontextprotocol/clientCapabilities": capabilities}
        params: dict[str, Any] = {"name": tool, "arguments": arguments, "_meta": meta}
        asked: list[dict[str, Any]] = []
        while True:
            result = (await self.request("tools/call", params))["result"]
            if result.get("resultType") != "input_required":
                return fitting(tool, result["structuredContent"]), asked
            asked += [question["params"] for question in result["inputRequests"].values()]
            params["inputResponses"] = {name: dict(reply) for name in result["inputRequests"]}
            params["requestState"] = result["requestState"]

    async def run(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Run a task to its end."""
        run = await self.call("run_task", id=task, wait_seconds=50, **arguments)
        assert "run_id" in run, run
        return run

    async def first_line(self, run_id: str) -> None:
        """Return once the run has written something."""
        while not (await self.call("get_logs", run_id=run_id))["lines"]:
            pass


_SCHEMAS = {tool.name: tool.shown().output_schema for tool in ALL_TOOLS}


def fitting(tool: str, result: dict[str, Any]) -> dict[str, Any]:
    """Give a result, which must be as the tool's own schema says."""
    check: Any = Draft202012Validator(_SCHEMAS[tool] or {})
    problems = [f"{error.json_path}: {error.message}" for error in check.iter_errors(result)]
    assert problems == [], tool
    return result


Serve = Callable[..., AbstractAsyncContextManager[Live]]


def write_task(tasks: Path, name: str, script: str, manifest: str = MANUAL) -> None:
    folder = tasks / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.yaml").write_text(f"name: {name}\n{manifest}")
    (folder / "task.py").write_text(script)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Start a server on ``tmp_path`` (again, when called again) for the length of a block."""

    @asynccontextmanager
    async def start(
        *,
        http: bool = False,
        slots: int = 4,
        drain: float = 0.0,
        environ: MutableMapping[str, str] | None = None,
        sources: Sequence[SourceConfig] = (),
        server_config: ServerConfig | None = None,
        sandbox: str | None = None,
        **settings: Any,
    ) -> AsyncGenerator[Live]:
        (tmp_path / "tasks").mkdir(exist_ok=True)
        config = Config(
            data_dir=tmp_path / "data",
            sources=(SourceConfig(type="local", path=str(tmp_path / "tasks")), *sources),
            server=server_config or ServerConfig(port=0, allow_local_git=True),
            execution=ExecutionConfig.model_validate(
                {"max_concurrent_runs": slots, "drain": drain}
                | ({} if sandbox is None else {"sandbox": sandbox})
            ),
            **settings,
        )
        server = Server(config, environ=environ or os.environ, clock=SystemClock(), http=http)
        serving = asyncio.create_task(server.serve())
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        ready.cancel()
        if serving.done():
            serving.result()
        try:
            yield Live(tmp_path, server)
        finally:
            server.stop()
            async with asyncio.timeout(60):
                await serving

    return start

"""What the tests of this folder need: the Node tools, and a real server as a process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from node_tools import missing
from realserver import RealServer

from dicode_mcp.testing.waiting import DEADLINE_S


@pytest.fixture(scope="session", autouse=True)
def node_tools() -> None:
    """Skip where the tools are not there; in CI that is a failure."""
    why = missing()
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)


@pytest.fixture
async def real_server(tmp_path: Path) -> AsyncGenerator[RealServer]:
    """Run `python -m dicode_mcp.daemon` on two tasks in a data dir of its own."""
    tasks = tmp_path / "tasks"
    for name, script in (("hello", "def main(params):\n    return params.get('who')\n"),):
        (tasks / name).mkdir(parents=True)
        (tasks / name / "task.py").write_text(script)
        (tasks / name / "task.yaml").write_text(
            f"name: {name}\ndescription: Gives who back.\nruntime: python\n"
            "trigger: {manual: true}\nparams: {who: {type: string, default: world}}\n"
        )
    data_dir = tmp_path / "data"
    command = ["-m", "dicode_mcp.daemon", "--data-dir", str(data_dir), "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--source",
        str(tasks),
        stderr=asyncio.subprocess.PIPE,
        # A server of a developer's own must not be read as this one's configuration.
        env={**os.environ, "HOME": str(tmp_path), "DICODE_CONFIG": ""},
        cwd=tmp_path,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while b" serves " not in (line := await process.stderr.readline()):
                assert line, "the server ended while it started"
        facts = json.loads((data_dir / "server.lock").read_text())
        yield RealServer(f"http://{facts['host']}:{facts['port']}", data_dir)
    finally:
        process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            await process.communicate()

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

from dicode_mcp.testing.lacking import lacking
from dicode_mcp.testing.waiting import until

START_S = 60.0
_MANIFEST = """\
name: hello
description: Gives who back.
runtime: python
trigger: {manual: true}
params: {who: {type: string, default: world}}
"""


@pytest.fixture(scope="session", autouse=True)
def node_tools() -> None:
    """Skip where the tools are not there; in CI that is a failure."""
    if why := missing():
        lacking(why)


@pytest.fixture
async def real_server(tmp_path: Path) -> AsyncGenerator[RealServer]:
    """Run `python -m dicode_mcp.daemon` with one task, in a data dir of its own."""
    task = tmp_path / "tasks" / "hello"
    task.mkdir(parents=True)
    (task / "task.yaml").write_text(_MANIFEST)
    (task / "task.py").write_text("def main(params):\n    return params.get('who')\n")
    data_dir, log = tmp_path / "data", tmp_path / "log"
    command = ["-m", "dicode_mcp.daemon", "--data-dir", str(data_dir), "--port", "0"]
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            "--source",
            str(tmp_path / "tasks"),
            stderr=errors,
            # A server of a developer's own must not be read as this one's configuration.
            env={**os.environ, "HOME": str(tmp_path), "DICODE_CONFIG": ""},
            cwd=tmp_path,
        )
    try:
        await until(
            lambda: b" serves " in log.read_bytes() or process.returncode is not None, START_S
        )
        assert process.returncode is None, log.read_text()
        facts = json.loads((data_dir / "server.lock").read_text())
        yield RealServer(f"http://{facts['host']}:{facts['port']}", data_dir)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(START_S):
            await process.wait()

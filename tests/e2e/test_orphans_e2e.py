"""A task's child that wiped its environment and left its session, seen from outside the server."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from crash_loop import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux"),
]

TASK = """\
name: Leaver
runtime: python
trigger: {manual: true}
params: {how: {type: string}}
timeout: 2s
"""
SCRIPT = """\
import subprocess, time
def main(params):
    null = subprocess.DEVNULL
    left = subprocess.Popen(["sleep", "300"], start_new_session=True, env={},
                            stdin=null, stdout=null, stderr=null)
    print(left.pid, flush=True)
    if params.get("how") in ("cancel", "timeout"):
        time.sleep(300)
    if params.get("how") == "failure":
        raise ValueError("on purpose")
"""


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    server = Server(tmp_path)
    folder = server.tasks / "leaver"
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(TASK)
    (folder / "task.py").write_text(SCRIPT)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("how", ["success", "failure", "cancel", "timeout"])
def test_it_is_gone_when_the_run_has_ended(server: Server, how: str) -> None:
    run = server.call("run_task", {"id": "leaver", "params": {"how": how}, "wait_seconds": 0})
    run_id = run["run_id"]
    pid = _first_line(server, run_id)
    if how == "cancel":
        server.call("cancel_run", {"run_id": run_id})
    ended = server.call("get_run", {"run_id": run_id, "wait_seconds": 30})
    assert ended["status"] in ("success", "failure", "cancelled", "timeout"), ended
    assert not Path(f"/proc/{pid}").exists()
    assert "1 process(es) outlived the script" in str(ended["logs_tail"])


def _first_line(server: Server, run_id: str) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = server.call("get_logs", {"run_id": run_id})["lines"]
        if lines:
            return int(lines[0]["message"])
    raise AssertionError("the task has said nothing")

"""A task's child that wiped its environment and left its session, seen from outside the server."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from crash_loop import Server

from dicode_mcp.testing.repositories import Remote

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
permissions: {run: [sleep]}
"""
SCRIPT = """\
import subprocess, time
def main(params):
    null = subprocess.DEVNULL
    mark = f"300.{time.time_ns()}"
    left = subprocess.Popen(["sleep", mark], start_new_session=True, env={},
                            stdin=null, stdout=null, stderr=null)
    print(mark, flush=True)
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
    mark = _first_line(server, run_id)
    if how in ("cancel", "timeout"):
        # In the other cases it is gone before one can look; the log below says that it was there.
        assert _alive(mark)
    if how == "cancel":
        server.call("cancel_run", {"run_id": run_id})
    ended = server.call("get_run", {"run_id": run_id, "wait_seconds": 30})
    assert ended["status"] in ("success", "failure", "cancelled", "timeout"), ended
    assert not _alive(mark)
    assert "1 process(es) outlived the script" in str(ended["logs_tail"])


def test_the_end_of_a_run_leaves_the_server_s_own_helpers_alone(tmp_path: Path) -> None:
    Remote(tmp_path / "remote").commit({"leaver/task.yaml": TASK, "leaver/task.py": SCRIPT})
    config = f"""\
server: {{allow_local_git: true}}
sources: [{{name: team, type: git, url: '{(tmp_path / "remote").as_uri()}'}}]
"""
    server = Server(tmp_path, config=config)
    server.start()
    try:
        for _ in range(3):
            ended = server.call("run_task", {"id": "team/leaver", "wait_seconds": 30})
            assert ended["status"] == "success", ended
            server.call("sync_source", {"source": "team"})
    finally:
        server.stop()
    assert "the git worker ended" not in server.log.read_text()


def _alive(mark: str) -> bool:
    """Tell whether a process with this word in its command is there; the task knows other pids."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if mark.encode() in file.read_bytes():
                return True
    return False


def _first_line(server: Server, run_id: str) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = server.call("get_logs", {"run_id": run_id})["lines"]
        if lines:
            return lines[0]["message"]
    raise AssertionError("the task has said nothing")

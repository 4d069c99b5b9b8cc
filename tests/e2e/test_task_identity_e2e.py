"""A running task is nobody on the server's own surfaces, whatever it does; its user stays served.

The server is a process of its own, the task a real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="keyless HTTP is Linux's"),
]

DEADLINE_S = 90.0
INTRUDER = Path(__file__).parent / "data" / "intruder"
MANUAL = "runtime: python\ntrigger: {manual: true}\n"
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def message(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments, "_meta": _META}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@dataclass(frozen=True)
class Served:
    """A server, and what its user may do with it."""

    data: Path
    host: str
    port: int
    log: Path

    @property
    def targets(self) -> str:
        """Where the intruder tries."""
        return f"socket:{self.data / 'dicode.sock'} http:{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool over HTTP on a new connection, as the user."""
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": tool,
        }
        url = f"{self.url}/mcp"
        answer = httpx.post(
            url, json=message(tool, arguments), headers=headers, timeout=30, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]["structuredContent"]

    def call_over_the_socket(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool over the socket on a new connection, as the user."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.data / "dicode.sock"))
            link.sendall(json.dumps(message(tool, arguments)).encode() + b"\n")
            return json.loads(link.makefile().readline())["result"]["structuredContent"]

    def give_a_key(self, path: Path) -> None:
        """Write a key for everything to a file, and see that it is right."""
        arguments = {"name": "careless", "scopes": ["run", "read"]}
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.data / "dicode.sock"))
            lines = [{"dicode": {"client": "cli"}}, message("keys_create", arguments)]
            link.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            made = json.loads(link.makefile().readline())["result"]["structuredContent"]
        path.write_text(made["key"])
        url = f"{self.url}/api/tasks"
        headers = {"authorization": f"Bearer {made['key']}"}
        assert httpx.get(url, headers=headers, timeout=30, trust_env=False).status_code == 200
        self.call_over_the_socket("sync_source", source="tasks")

    def ended(self, run_id: str) -> dict[str, Any]:
        """Wait for a run, asking on both surfaces all the while."""
        deadline = time.monotonic() + DEADLINE_S
        while (run := self.call("get_run", run_id=run_id, wait_seconds=0))["status"] in (
            "queued",
            "running",
        ):
            assert time.monotonic() < deadline, run
            assert self.call_over_the_socket("get_status")["tasks"]["ready"] >= 2
        return run


@contextmanager
def serving(room: Path, host: str) -> Generator[Served]:
    """Serve the intruder and its victim while the block lasts."""
    tasks, data, log = room / "tasks", room / "data", room / "server.log"
    shutil.copytree(INTRUDER, tasks / "intruder")
    params = "params: {targets: {type: string, required: true}}\n"
    (tasks / "intruder" / "task.yaml").write_text(f"name: intruder\n{MANUAL}{params}timeout: 80s\n")
    (tasks / "victim").mkdir()
    (tasks / "victim" / "task.yaml").write_text(f"name: victim\n{MANUAL}")
    (tasks / "victim" / "task.py").write_text("result = 1\n")
    # Without a sandbox, which would not let the task come so far.
    (room / "dicode.yaml").write_text("execution: {sandbox: off}\n")
    command = [sys.executable, "-m", "dicode_mcp.daemon", "--data-dir", str(data)]
    command += ["--config", str(room / "dicode.yaml")]
    command += ["--source", str(tasks), "--host", host, "--port", "0"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DICODE_")}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env={**env, "HOME": str(room)},
            cwd=room,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + DEADLINE_S
            while " serves " not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            port = json.loads((data / "server.lock").read_text())["port"]
            yield Served(data, host, port, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def listens_on(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.bind((host, 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "key"), [("127.0.0.1", False), ("::1", False), ("127.0.0.1", True)]
)
def test_a_task_has_no_identity_on_the_socket_and_over_http_while_its_user_is_served(
    tmp_path: Path, host: str, key: bool
) -> None:
    """With ``key`` it sends a right key, which somebody was careless enough to give it."""
    if not listens_on(host):
        pytest.skip(f"no {host} here")
    with serving(tmp_path, host) as served:
        if key:
            served.give_a_key(tmp_path / "tasks" / "intruder" / "key")
        started = served.call(
            "run_task", id="intruder", params={"targets": served.targets}, wait_seconds=0
        )
        run = served.ended(started["run_id"])
        assert run["status"] == "success", run
        for way, answer in run["return_value"].items():
            assert "permissions.dicode" in answer, (way, answer)
            if way.startswith("http:"):
                assert answer.startswith("200 401 "), (way, answer)
            else:
                assert json.loads(answer)["dicode"]["error"]["code"] == "forbidden", (way, answer)
        assert len(run["return_value"]) == 11 + 13
        assert served.call("get_runs", task="victim")["runs"] == []
        log = served.log.read_text()
    for surface in ("the socket", "HTTP"):
        (line,) = [
            line
            for line in log.splitlines()
            if f"over {surface}, and" in line and "more" not in line
        ]
        assert f"a task (run {started['run_id']}, pid " in line

"""Another user of this machine: nobody to the server without a key, over HTTP and the socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_task_identity_e2e import Served, listens_on, message, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="keyless HTTP is Linux's"),
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can start a process of another user; run it as root"
    ),
]

OTHER = 65534
_CALLS = """\
import http.client, json, os, socket, sys
import encodings.idna

host, port, path, uid, requests = sys.argv[1:]
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
told = {"uid": os.geteuid()}
for name, (method, target, headers, body) in json.loads(requests).items():
    link = http.client.HTTPConnection(host, int(port), timeout=30)
    link.request(method, target, body=body, headers=headers)
    answer = link.getresponse()
    told[name] = [answer.status, answer.read().decode(), answer.getheader("www-authenticate")]
    link.close()
try:
    socket.socket(socket.AF_UNIX).connect(path)
    told["socket"] = "connected"
except OSError as error:
    told["socket"] = type(error).__name__
print(json.dumps(told))
"""


def as_user(served: Served, uid: int, requests: dict[str, Any]) -> dict[str, Any]:
    """Send requests from a process of a user; gives status, body and challenge of each."""
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _CALLS]
    command += [served.host, str(served.port), str(served.data / "dicode.sock"), str(uid)]
    command += [json.dumps(requests)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def requests_with(key: str | None) -> dict[str, Any]:
    proof = {} if key is None else {"Authorization": f"Bearer {key}"}
    mcp = {
        **proof,
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "run_task",
    }
    call = json.dumps(message("run_task", {"id": "victim", "wait_seconds": 0}))
    return {
        "list": ["GET", "/api/tasks", proof, None],
        "page": ["GET", "/", {**proof, "Accept": "text/html"}, None],
        "events": ["GET", "/api/events?types=nothing", proof, None],
        "metrics": ["GET", "/metrics", proof, None],
        "run": ["POST", "/api/tasks/victim/run", {**proof, "Content-Type": "application/json"}, ""],
        "mcp": ["POST", "/mcp", mcp, call],
        "health": ["GET", "/healthz", proof, None],
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_another_user_is_nobody_without_a_key_and_its_holder_with_one(
    tmp_path: Path, host: str
) -> None:
    if not listens_on(host):
        pytest.skip(f"no {host} here")
    with serving(tmp_path, host) as served:
        told = as_user(served, OTHER, requests_with(None))
        assert told.pop("uid") == OTHER
        assert told.pop("socket") == "PermissionError"
        assert told.pop("health")[0] == 200
        for name, (status, body, challenge) in told.items():
            assert status == 401, (name, body)
            assert challenge == 'Bearer realm="dicode"', (name, challenge)
            if name != "page":
                assert "dicode keys create" in json.loads(body)["hint"]
        assert served.call("get_runs", task="victim")["runs"] == []

        own = as_user(served, os.geteuid(), requests_with(None))
        assert (own["list"][0], own["mcp"][0], own["socket"]) == (200, 200, "connected")
        started = len(served.call("get_runs", task="victim")["runs"])
        assert started == 2

        key = tmp_path / "key"
        served.give_a_key(key)
        told = as_user(served, OTHER, requests_with(key.read_text()))
        statuses: dict[str, int] = {name: told[name][0] for name in requests_with(None)}
        assert statuses == {name: 400 if name == "events" else 200 for name in statuses} | {
            "run": statuses["run"]
        }
        assert statuses["run"] in (200, 202)
        assert len(served.call("get_runs", task="victim")["runs"]) == started + 2
        entries = served.call("get_audit", actor="key:careless*")["entries"]
        assert {entry["action"] for entry in entries} == {"run_task"}


def test_a_wrong_key_of_another_user_is_told_once_in_the_audit_and_never_shown(
    tmp_path: Path,
) -> None:
    wrong = "dck_abcdefghij_" + "A" * 43
    with serving(tmp_path, "127.0.0.1") as served:
        told = as_user(served, OTHER, requests_with(wrong))
        for name in ("list", "mcp", "health", "run"):
            assert told[name][0] == 401
            assert 'error="invalid_token"' in told[name][2]
            assert wrong not in told[name][1]
        entries = served.call("get_audit", action="authenticate")["entries"]
        assert [entry["target"] for entry in entries] == ["127.0.0.1"]
        assert wrong not in served.log.read_text()

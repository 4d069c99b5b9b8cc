"""Runs whose network goes through the gate: as root and as somebody else, Python and Deno."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed

from dicode_mcp.testing.cages import this_machine
from dicode_mcp.testing.others import as_somebody, python_of_others
from dicode_runtimes.deno.program import DenoProgram

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not this_machine().separates, reason="no namespaces here"
    ),
]

ROOM = Path(__file__).parent / "gate_room.py"
DENO = DenoProgram(os.environ)
REACHED = {
    "python": {
        "urllib": "hello from web",
        "tls": "hello from tls",
        "raw": "raw heard ping\n",
        "raw over six": "raw heard ping\n",
        "asyncio": "raw heard ping\n",
        "listed address": "raw heard ping\n",
        "localhost at ::1": "six heard ping\n",
        "wildcard, any port": "raw heard ping\n",
        "own listener": "mine",
        "stub": "code 0, 1 answers",
        "stub elsewhere": "code 0, 1 answers",
        "stub over six": "code 0, 1 answers",
        "stub by stream": "code 0, 1 answers",
        "stub, text": "code 0, 0 answers",
        "tunnel": ["code 3, 0 answers"],
    },
    "deno": {
        "fetch": "hello from web",
        "tls": "hello from tls",
        "raw": "raw heard ping\n",
        "listed address": "raw heard ping\n",
        "wildcard, any port": "raw heard ping\n",
    },
}
TOLD = {
    "python": [
        'connect other.test - add to task.yaml: permissions.net: ["other.test"]',
        'connect allowed.test:{shut} - add to task.yaml: permissions.net: ["allowed.test:{shut}"]',
        "connect 127.0.0.2:{web} - add",
        "connect 1.1.1.1:443 - add",
        "connect [2606:4700::1111]:443 - add",
        "connect deep.wild.example:{shut} (it leads to a loopback address, which must be listed",
        "connect rebound.example:{web} (it leads to a loopback address",
        "connect metadata.example:80 (it leads to a link-local address",
        "connect 127.0.0.1:{own} (this is the server itself",
        ".tunnel.example - add",
    ],
    "deno": [
        "connect rebound.example:{web} (it leads to a loopback address",
        "connect metadata.example:80 (it leads to a link-local address",
        "connect 127.0.0.1:{own} (this is the server itself",
    ],
}


@pytest.fixture
def folder() -> Generator[Path]:
    made = Path(tempfile.mkdtemp(prefix="gate-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize("who", ["self", "another_user"])
@pytest.mark.parametrize("kind", ["python", "deno"])
def test_what_is_listed_is_reached_and_nothing_else(kind: str, who: str, folder: Path) -> None:
    if who == "another_user" and os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    if kind == "deno" and not DENO.health.ok:
        pytest.skip("no deno here")
    words = [str(ROOM), str(folder), kind, *self_signed(folder, "allowed.test")]
    python: str | None = sys.executable
    options: dict[str, Any] = {}
    if who == "another_user":
        python = python_of_others()
        options = as_somebody(folder, os.path.dirname(DENO.path or "/usr/bin"))
    if python is None:
        pytest.skip("no interpreter here that another user may start")
    done = subprocess.run(
        [python, *words], capture_output=True, text=True, timeout=120, cwd="/", **options
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["status"] == "success", told
    tries = told["tries"]
    assert {name: tries[name] for name in REACHED[kind]} == REACHED[kind]
    others = {name: value for name, value in tries.items() if name not in REACHED[kind]}
    assert len(others) >= 10
    assert {n: v for n, v in others.items() if not str(v).startswith("refused: ")} == {}
    assert not {"shut", "own"} & set(told["visits"])
    wanted = [text.format(**told["ports"]) for text in TOLD[kind]]
    assert [w for w in wanted if not any(w in line for line in told["security"])] == []
    assert len(told["security"]) <= 21

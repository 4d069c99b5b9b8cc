"""Runs whose connections the server makes: for machines without namespaces, such as containers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from certificates import self_signed

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.forkserver.pool import Bounds
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.gate.outside import Outside
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import Payload
from dicode_mcp.spec.model import Permissions
from dicode_mcp.testing.cages import this_machine
from dicode_mcp.testing.forking import QUICK
from dicode_mcp.testing.others import as_somebody, python_of_others
from dicode_mcp.testing.runtime_house import RuntimeHouse
from dicode_runtimes.deno.program import DenoProgram
from dicode_runtimes.python import PythonRuntime

NO_LANDLOCK = this_machine().landlock < 3
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(this_machine().told) or NO_LANDLOCK,
    reason="no notices of system calls here, or no Landlock",
)

DATA = Path(__file__).parent / "data"
ROOM = Path(__file__).parent / "gate_room.py"
DENO = DenoProgram(os.environ)
HELLO = "hello from web"
PING = "raw heard ping\n"
REACHED = {
    "python": {
        "urllib": HELLO,
        "tls": "hello from tls",
        "raw": PING,
        "asyncio": PING,
        "listed address": PING,
        "localhost at ::1": "six heard ping\n",
        "wildcard, any port": PING,
        "stub by stream": "code 0, 1 answers",
    },
    "deno": {
        "fetch": HELLO,
        "tls": "hello from tls",
        "raw": PING,
        "listed address": PING,
        "wildcard, any port": PING,
    },
}
TOLD = {
    "python": [
        'connect other.test - add to task.yaml: permissions.net: ["other.test"]',
        'connect allowed.test:{shut} - add to task.yaml: permissions.net: ["allowed.test:{shut}"]',
        "connect 127.0.0.2:{web} - add",
        "connect 1.1.1.1:443 - add",
        "connect [2606:4700::1111]:443 - add",
        "connect rebound.example:{web} (it leads to a loopback address",
        "connect metadata.example:80 (it leads to a link-local address",
        "connect 127.0.0.1:{own} (this is the server itself",
    ],
    "deno": [
        "connect rebound.example:{web} (it leads to a loopback address",
        "connect metadata.example:80 (it leads to a link-local address",
        "connect 127.0.0.1:{own} (this is the server itself",
    ],
}


@pytest.fixture
def folder() -> Generator[Path]:
    made = Path(tempfile.mkdtemp(prefix="led-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "how", "who"),
    [
        ("python", "led", "self"),
        ("python", "bare", "self"),
        ("python", "bare", "another_user"),
        ("deno", "led", "self"),
        ("deno", "bare", "self"),
    ],
)
def test_without_namespaces_what_is_listed_is_reached_and_nothing_else(
    kind: str, how: str, who: str, folder: Path
) -> None:
    if kind == "deno" and not DENO.health.ok:
        pytest.skip("no deno here")
    if how == "bare" and this_machine().user:
        pytest.skip("no namespace of users here, so none to have none in")
    words = [str(ROOM), str(folder), kind, *self_signed(folder, "allowed.test"), how]
    python: str | None = sys.executable
    options: dict[str, Any] = {}
    if who == "another_user":
        if os.geteuid() != 0:
            pytest.skip("only root can become somebody else")
        python = python_of_others()
        options = as_somebody(folder)
    if python is None:
        pytest.skip("no interpreter here that another user may start")
    done = subprocess.run(
        [python, *words], capture_output=True, text=True, timeout=120, cwd="/", **options
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["status"] == "success", told
    assert "no namespaces" in told["sandbox"]
    assert "network degraded" in told["sandbox"]
    tries = told["tries"]
    assert {name: tries[name] for name in REACHED[kind]} == REACHED[kind]
    others = {name: value for name, value in tries.items() if name not in REACHED[kind]}
    assert len(others) >= 10
    assert {n: v for n, v in others.items() if not str(v).startswith("refused: ")} == {}
    assert not {"shut", "own"} & set(told["visits"])
    wanted = [text.format(**told["ports"]) for text in TOLD[kind]]
    assert [w for w in wanted if not any(w in line for line in told["security"])] == []


class Room:
    """A house on a machine without namespaces, and a server it may reach as ``allowed.test``."""

    def __init__(self, house: RuntimeHouse, runtime: PythonRuntime, port: int) -> None:
        self.house = house
        self.runtime = runtime
        self.port = port
        self.permissions = Permissions(net=(f"allowed.test:{port}", f"127.0.0.1:{port}"))

    async def tries(self) -> Any:
        """Run the script that speaks to the proxy; gives what it was told."""
        script = (DATA / "through_the_proxy.py").read_text()
        params = Payload(params={"port": self.port})
        ended = await self.house.run(script, params, permissions=self.permissions)
        self.security = [text for level, text in ended.log if level is Level.SECURITY]
        return ended.value


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            if line.startswith((b"GET", b"POST")):
                head = [line]
                while (more := await reader.readline()).strip():
                    head.append(more)
                size = [int(h.split(b":")[1]) for h in head if h.lower().startswith(b"content-le")]
                body = await reader.readexactly(size[0]) if size else b""
                shown = b"".join(head) + body
                said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(shown) + shown
                writer.write(said)
                break
            writer.write(b"heard " + line)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


@pytest_asyncio.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    become_subreaper()
    outside = Outside(lambda name: ["127.0.0.1"])
    async with AsyncExitStack() as stack:
        stack.callback(outside.close)
        probe = replace(this_machine(), files="no", files_as_root="no")
        cages = Cages("strict", probe, Ceilings(2**31, 512), outside)
        executor = SpawnExecutor(SystemClock(), cages=cages, forks=Bounds(forks=100))
        await stack.enter_async_context(executor)
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        await stack.enter_async_context(server)
        runtime = PythonRuntime(warm=QUICK)
        house = RuntimeHouse(runtime, ".py", executor, tmp_path)
        yield Room(house, runtime, server.sockets[0].getsockname()[1])


async def test_a_proxy_serves_what_is_listed_by_http_and_by_socks(room: Room) -> None:
    told = await room.tries()
    assert told["connect"] == "heard ping\n"
    assert told["connect, sent at once"] == "heard ping\n"
    assert told["socks, name"] == "heard ping\n"
    assert told["socks, address"] == "heard ping\n"
    assert told["socks, mapped address"] == "heard ping\n"
    whole = told["whole url"].split("\r\n\r\n")[1]
    assert whole.startswith("POST /path?q=1 HTTP/1.1\r\n")
    assert "Connection: close\r\n" in whole
    assert "roxy" not in whole
    assert told["whole url"].endswith("body")


async def test_a_proxy_refuses_what_is_not_listed_and_the_log_says_what_to_add(room: Room) -> None:
    told = await room.tries()
    for name in (
        "connect, another port", "connect, another name", "connect, number", "connect, rebound",
        "connect, public",
    ):  # fmt: skip
        assert told[name].startswith("HTTP/1.1 403 Forbidden\r\n"), (name, told[name])
    assert told["whole url, another name"].startswith("HTTP/1.1 403 Forbidden\r\n")
    assert told["nonsense"].startswith("HTTP/1.1 400 Bad Request\r\n")
    assert told["socks, another name"] == "refused: 2"
    assert told["socks, another address"] == "refused: 2"
    assert told["socks, listening"] == "refused: 7"
    assert told["socks, udp"] == "refused: 7"
    assert told["socks, no such kind"] == "refused: 8"
    assert told["socks, with a password only"] == "no method"
    assert any('permissions.net: ["other.test"]' in line for line in room.security)
    assert any("connect 1.1.1.1:443 - add" in line for line in room.security)


async def test_nothing_leads_past_the_server(room: Room) -> None:
    told = await room.tries()
    ways = {name: value for name, value in told.items() if name.startswith("past: ")}
    assert len(ways) >= 12
    assert {n: v for n, v in ways.items() if not v.startswith("refused")} == {}


async def test_a_forked_run_is_led_as_well(room: Room) -> None:
    kept = room.runtime.warm()
    assert kept is not None
    server = await room.house.executor.forks.until_ready(*kept)
    told = await room.tries()
    assert server.forks == 1
    assert told["connect"] == "heard ping\n"
    assert told["past: address"].startswith("refused")


async def test_many_connections_at_once_are_served(room: Room) -> None:
    ended = await room.house.run(
        f"""
        import socket
        links = [socket.create_connection(("127.0.0.1", {room.port})) for _ in range(200)]
        for link in links:
            link.sendall(b"hi\\n")
        result = sorted({{link.recv(20).decode() for link in links}})
        """,
        permissions=room.permissions,
    )
    assert ended.value == ["heard hi\n"]


async def test_where_notices_are_not_to_be_had_a_task_with_hosts_is_not_started(
    tmp_path: Path,
) -> None:
    probe = replace(
        this_machine(), files="Operation not permitted", files_as_root="no", told="seccomp: busy"
    )
    async with SpawnExecutor(SystemClock(), cages=Cages("strict", probe)) as executor:
        house = RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path)
        with pytest.raises(DicodeError, match=r"permissions\.net: hosts are held by") as caught:
            await house.run("pass", permissions=Permissions(net=("api.example.com",)))
        assert (await house.run("result = 1")).value == 1
    assert caught.value.code is Code.SANDBOX_UNAVAILABLE
    assert "seccomp: busy" in caught.value.message
    assert "unshare" in (caught.value.hint or "")

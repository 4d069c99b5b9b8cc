"""The unix socket as a byte pipe and the CLI use it: raw lines, no SDK on the client's side."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server import Server
from mcphouse import VERSION, House, SocketTransport

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.testing.waiting import DEADLINE_S, until
from dicode_mcp.tools.lines import MAX_LINE_BYTES
from dicode_mcp.tools.peer import Peer
from dicode_mcp.tools.socket import McpSocket

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "dicode-cli", "version": "0.1.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def call(tool: str, arguments: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    """Give the one line that calls a tool without a handshake."""
    params = {"name": tool, "arguments": arguments or {}, "_meta": {**META, **meta}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


class Line:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, *messages: Any) -> None:
        """Write messages (or raw bytes) in one go."""
        parts = [m if isinstance(m, bytes) else json.dumps(m).encode() + b"\n" for m in messages]
        self.writer.write(b"".join(parts))

    async def read(self) -> dict[str, Any]:
        """Read one line."""
        async with asyncio.timeout(DEADLINE_S):
            return json.loads(await self._reader.readline())

    async def ended(self) -> bool:
        """Tell whether the server closes."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._reader.read() == b""


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Line]:
    """Connect and disconnect."""
    reader, writer = await asyncio.open_unix_connection(path, limit=2**25)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


async def test_one_line_calls_a_tool_without_handshake(socket_path: Path) -> None:
    async with opened(socket_path) as line:
        line.send(call("get_status"))
        answer = await line.read()
    assert answer["id"] == 1
    assert answer["result"]["structuredContent"]["version"] == VERSION


async def test_a_preamble_with_hello_is_answered_first(socket_path: Path) -> None:
    preamble = {"dicode": {"version": "0.1.0", "client": "cli", "hello": True}}
    async with opened(socket_path) as line:
        line.send(preamble, call("run_task", {"id": "hello"}))
        assert await line.read() == {"dicode": {"version": VERSION, "pid": os.getpid(), "ok": True}}
        run = (await line.read())["result"]["structuredContent"]
    assert (run["trigger"], run["status"]) == ("cli", "success")


async def test_a_preamble_without_hello_has_no_answer_and_narrows(socket_path: Path) -> None:
    preamble = {"dicode": {"read_only": True, "toolsets": ["tasks", "runs"], "tasks": "hel*"}}
    async with opened(socket_path) as line:
        line.send(preamble, call("run_task", {"id": "hello"}))
        assert (await line.read())["result"]["structuredContent"]["error"]["code"] == "forbidden"
        line.send(call("list_tasks"))
        tasks = (await line.read())["result"]["structuredContent"]["tasks"]
        assert [task["id"] for task in tasks] == ["hello"]
        line.send({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": META}})
        names = {tool["name"] for tool in (await line.read())["result"]["tools"]}
    assert names == {
        "get_logs",
        "get_run",
        "get_runs",
        "get_stats",
        "get_task",
        "list_tasks",
        "suggest_permissions",
        "validate_task",
    }


@pytest.mark.parametrize(
    "preamble",
    [
        b'{"dicode": {"raed_only": true}}\n',
        b'{"dicode": {"read_only": "yes"}}\n',
        b'{"dicode": {"toolsets": ["task"]}}\n',
        b'{"dicode": {"toolsets": "tasks"}}\n',
        b'{"dicode": {"client": "web"}}\n',
        b'{"dicode": {"tasks": 5}}\n',
        b'{"dicode": []}\n',
    ],
)
async def test_a_preamble_that_is_not_understood_whole_is_refused(
    socket_path: Path, preamble: bytes
) -> None:
    async with opened(socket_path) as line:
        line.send(preamble, call("get_status"))
        answer = (await line.read())["dicode"]
        assert answer["ok"] is False
        assert answer["error"]["code"] == "invalid_argument"
        assert await line.ended()


async def test_the_sdk_client_works_behind_a_preamble(socket_path: Path) -> None:
    transport = SocketTransport(socket_path, b'{"dicode": {"read_only": true}}\n')
    async with Client(transport, mode="auto") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert "run_task" not in names
    assert "list_tasks" in names


@pytest.mark.parametrize(
    ("garbage", "code", "request_id"),
    [
        (b"hello\n", -32700, None),
        (b'{"jsonrpc": "2.0", "id": 7}\n', -32600, 7),
        (b'[{"jsonrpc": "2.0", "id": 7, "method": "ping"}]\n', -32600, None),
        (b"\xff\xfe\n", -32700, None),
        (b"[" * 100_000 + b"\n", -32700, None),
        (b'{"id": true}\n', -32600, None),
    ],
)
async def test_garbage_gets_a_protocol_answer_and_the_connection_goes_on(
    socket_path: Path, garbage: bytes, code: int, request_id: int | None
) -> None:
    async with opened(socket_path) as line:
        line.send(garbage)
        answer = await line.read()
        assert (answer["error"]["code"], answer["id"]) == (code, request_id)
        line.send(b"\n", call("get_status"))
        assert "result" in await line.read()


async def test_an_unknown_protocol_version_is_answered_with_the_known_ones(
    socket_path: Path,
) -> None:
    version: dict[str, Any] = {"io.modelcontextprotocol/protocolVersion": "2030-01-01"}
    request = call("get_status", {}, **version)
    async with opened(socket_path) as line:
        line.send(request)
        answer = await line.read()
    assert answer["error"]["code"] == -32022
    assert answer["error"]["data"]["supported"] == ["2026-07-28"]


async def test_half_a_request_and_an_end_close_the_connection(socket_path: Path) -> None:
    async with opened(socket_path) as line:
        line.send(b'{"jsonrpc": "2.0", "id": 1, "meth')
        line.writer.write_eof()
        assert await line.ended()


@pytest.mark.slow
async def test_a_line_over_16_mib_is_answered_and_ends_the_connection(socket_path: Path) -> None:
    async with opened(socket_path) as line:
        line.send(call("get_status"))
        await line.read()
        line.send(b" " * (MAX_LINE_BYTES + 70_000))
        answer = await line.read()
        assert answer["error"]["code"] == -32700
        assert "16 MiB" in answer["error"]["message"]
        assert await line.ended()


async def test_a_client_that_hangs_up_during_run_task_leaves_the_run_alive(
    socket_path: Path, house: House
) -> None:
    async with opened(socket_path) as line:
        line.send(call("run_task", {"id": "slow"}))
        await until(lambda: house.started.is_set())
    async with opened(socket_path) as line:
        line.send(call("get_run", {"run_id": house.slow_run}))
        assert (await line.read())["result"]["structuredContent"]["status"] == "running"
        house.gate.set()
        line.send(call("get_run", {"run_id": house.slow_run, "wait_seconds": 20}))
        assert (await line.read())["result"]["structuredContent"]["status"] == "success"


async def test_a_call_with_a_progress_token_gets_progress_lines_before_its_answer(
    socket_path: Path, house: House
) -> None:
    async with opened(socket_path) as line:
        heard = asyncio.Event()
        telling = asyncio.create_task(house.progress_until(heard))
        line.send(call("run_task", {"id": "slow"}, progressToken=5))
        told = await line.read()
        heard.set()
        await telling
        house.gate.set()
        while (answer := await line.read()).get("method"):
            assert answer["method"] == "notifications/progress"
    assert told["method"] == "notifications/progress"
    assert (told["params"]["progressToken"], told["params"]["message"]) == (5, "some part")
    assert answer["result"]["structuredContent"]["status"] == "success"


async def test_the_socket_is_for_its_owner_only_and_goes_with_the_server(
    server: Server[Any], tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    async with McpSocket(server, version=VERSION).listening(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with opened(path) as line:
            line.send(call("get_status"))
            assert "result" in await line.read()
    assert not path.exists()


async def test_a_file_in_the_sockets_place_is_left_alone(
    server: Server[Any], tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(DicodeError) as raised:
        async with McpSocket(server, version=VERSION).listening(path):
            pytest.fail("listened over a file")
    assert raised.value.code is Code.DATA_DIR
    assert path.read_text() == "precious"


async def test_stopping_ends_open_connections(server: Server[Any], tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with McpSocket(server, version=VERSION).listening(path):
        reader, writer = await asyncio.open_unix_connection(path)
        line = Line(reader, writer)
        line.send(call("get_status"))
        await line.read()
    assert await line.ended()
    writer.close()


async def test_another_users_peer_is_refused_before_it_has_spoken(
    server: Server[Any], tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    stranger = McpSocket(
        server, version=VERSION, peer=lambda _: Peer(os.geteuid() + 1, os.getpid())
    )
    async with stranger.listening(path), opened(path) as line:
        answer = (await line.read())["dicode"]
        assert (answer["ok"], answer["error"]["code"]) == (False, "forbidden")
        assert await line.ended()


async def test_too_many_connections_are_told_so(server: Server[Any], tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with McpSocket(server, version=VERSION, max_connections=1).listening(path):
        async with opened(path) as first, opened(path) as second:
            first.send(call("get_status"))
            assert "result" in await first.read()
            assert (await second.read())["dicode"]["error"]["code"] == "rate_limited"


_CLIENT = """
import json, os, socket, sys
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
link.sendall(b'{"dicode": {"hello": true}}\\n')
print(link.makefile().readline(), end="")
"""


async def _as_process(path: Path, *arguments: str, **options: Any) -> dict[str, Any]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-I", "-S", "-c", _CLIENT, str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
        **options,
    )
    return json.loads(done.stdout)["dicode"]


async def test_what_the_server_started_itself_is_refused_as_a_task(
    server: Server[Any], tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    async with McpSocket(server, version=VERSION).listening(path):
        answer = await _as_process(path, env={"PATH": os.environ["PATH"]})
    assert (answer["ok"], answer["error"]["code"]) == (False, "forbidden")
    assert "permissions.dicode" in answer["error"]["hint"]


async def test_a_process_of_the_same_user_is_served(socket_path: Path) -> None:
    assert (await _as_process(socket_path))["ok"] is True


async def test_a_task_is_refused_whatever_it_starts(socket_path: Path) -> None:
    env = {**os.environ, "DICODE_RUN_ID": "01abc"}
    answer = await _as_process(socket_path, env=env)
    assert (answer["ok"], answer["error"]["code"]) == (False, "forbidden")
    assert "task" in answer["error"]["message"]
    shell = 'env -u DICODE_RUN_ID "$@"; exit $?'
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", shell, "sh", sys.executable, "-I", "-S", "-c", _CLIENT, str(socket_path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
        env=env,
    )
    assert json.loads(done.stdout)["dicode"]["ok"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
async def test_a_process_of_another_user_is_refused_by_the_kernels_word(
    server: Server[Any],
) -> None:
    # A folder and a mode that let the other user through, so that only the check refuses it.
    base = Path("/tmp") / f"dicode-uid-{os.getpid()}"
    base.mkdir(mode=0o755)
    path = base / "s.sock"
    try:
        async with McpSocket(server, version=VERSION).listening(path):
            path.chmod(0o666)
            answer = await _as_process(path, "65534")
    finally:
        base.rmdir()
    assert (answer["ok"], answer["error"]["code"]) == (False, "forbidden")

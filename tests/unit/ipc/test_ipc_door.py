"""The unix socket a task connects to, from both sides of it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.ipc import SessionServer
from dicode_mcp.ipc.door import Door
from dicode_mcp.protocols import Report
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger
from dicode_mcp.spec.model import Task, TaskSpec, TriggerSpec
from dicode_mcp.testing.task_calls import FakeTaskCalls

RUN = Run("run-1", "t", RunStatus.RUNNING, Trigger.MANUAL, 0)
TASK = Task(
    "t",
    TaskSpec(name="t", runtime="deno", trigger=TriggerSpec(manual=True)),
    Path("/t"),
    Path("/t/task.ts"),
    "",
    "s",
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        raise
    return client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # Short: a socket's path may have about 100 bytes, and pytest's folders are long.
    folder = Path("/tmp") / f"dicode-door-{os.getpid()}-{tmp_path.name[-20:]}"
    return folder / "s"


async def test_a_task_that_connects_is_served_and_its_report_kept(path: Path) -> None:
    server = SessionServer(FakeTaskCalls())
    async with server.open(RUN, TASK, Payload(params={"a": 1}), at=path) as session:
        assert session.child_fd is None
        reader, writer = await asyncio.open_unix_connection(str(path))
        start = json.loads(await reader.readline())["start"]
        assert start["params"] == {"a": 1}
        writer.write(b'{"id":1,"method":"kv.list","args":{}}\n')
        assert json.loads(await reader.readline()) == {"id": 1, "result": []}
        writer.write(b'{"finish":{"return":"5","error":null}}\n')
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(20):
            assert await session.report() == Report(True, "5")
    assert not path.parent.exists()


async def test_a_process_that_never_connects_told_nothing(path: Path) -> None:
    async with SessionServer(FakeTaskCalls()).open(RUN, TASK, Payload(), at=path) as session:
        async with asyncio.timeout(20):
            assert await session.report() == Report()


async def test_a_process_that_connected_spoke_and_ended_before_it_was_let_in_is_heard(
    path: Path,
) -> None:
    async with SessionServer(FakeTaskCalls()).open(RUN, TASK, Payload(), at=path) as session:
        with connect(path) as client:
            client.sendall(b'{"finish":{"return":"1","error":null}}\n')
        async with asyncio.timeout(20):
            assert (await session.report()).return_value == "1"


async def test_a_second_connection_is_not_served(path: Path) -> None:
    async with SessionServer(FakeTaskCalls()).open(RUN, TASK, Payload(), at=path):
        reader, writer = await asyncio.open_unix_connection(str(path))
        assert await reader.readline()
        with pytest.raises(OSError, match=r"No such file|refused"):
            connect(path)
        writer.close()


async def test_another_user_is_turned_away_and_the_next_one_let_in(path: Path) -> None:
    with Door(path, os.geteuid() + 1) as door:
        admitted = asyncio.create_task(door.admit())
        client = await asyncio.to_thread(_spoken_to, path)
        assert client == b""
        door.shut()
        assert await admitted is None


def _spoken_to(path: Path) -> bytes:
    with connect(path) as client:
        return client.recv(1)


async def test_the_socket_and_its_folder_are_private_and_go_with_the_run(path: Path) -> None:
    async with SessionServer(FakeTaskCalls()).open(RUN, TASK, Payload(), at=path):
        assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    assert not path.parent.exists()


async def test_a_folder_that_others_can_enter_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    try:
        with pytest.raises(DicodeError, match="not a private folder") as caught:
            Door(path, os.geteuid()).__enter__()
        assert caught.value.code is Code.INTERNAL
        assert path.parent.exists()
    finally:
        path.parent.rmdir()


async def test_what_is_raised_inside_comes_out_as_it_is(path: Path) -> None:
    server = SessionServer(FakeTaskCalls())
    with pytest.raises(DicodeError, match="cannot start"):
        async with server.open(RUN, TASK, Payload(), at=path):
            raise DicodeError(Code.RUNTIME_UNAVAILABLE, "cannot start")

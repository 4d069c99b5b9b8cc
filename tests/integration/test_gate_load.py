"""The gate under load, and when things end in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.gate.gate import MOST_CONNECTIONS
from dicode_mcp.executor.sandbox.gate.outside import Outside
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.executor.sandbox.probe import Probe
from dicode_mcp.executor.standby import StandbyBounds
from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.spec.model import Permissions
from dicode_mcp.testing.cages import this_machine
from dicode_mcp.testing.runtime_house import RuntimeHouse
from dicode_mcp.testing.waiting import until
from dicode_runtimes.python import PythonRuntime

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not this_machine().separates, reason="no namespaces here"
)
BLOCK = bytes(range(256)) * 4096


class Room:
    """A house with a gate, and a server it may reach as ``allowed.test``."""

    def __init__(self, house: RuntimeHouse, outside: Outside) -> None:
        self.house = house
        self.outside = outside
        self.port = 0
        self.now = 0
        self.most = 0
        self.served = 0
        self.words: list[bytes] = []
        self.broken = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a number with as many blocks, ``hold`` with nothing until the other side ends."""
        self.now += 1
        self.most = max(self.most, self.now)
        self.served += 1
        try:
            word = (await reader.readline()).strip()
            self.words.append(word)
            if word == b"hold":
                writer.write(b"held")
                await reader.read()
                self.broken.set()
            for _ in range(int(word) if word.isdigit() else 0):
                writer.write(BLOCK)
                await writer.drain()
            writer.write(b"." * 0 if word.isdigit() else b"ok")
            await writer.drain()
        except OSError:
            self.broken.set()
        finally:
            self.now -= 1
            writer.close()

    @property
    def permissions(self) -> Permissions:
        return Permissions(net=(f"allowed.test:{self.port}", f"127.0.0.1:{self.port}"))


@pytest_asyncio.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    become_subreaper()
    outside = Outside(lambda name: ["127.0.0.1"])
    async with AsyncExitStack() as stack:
        stack.callback(outside.close)
        cages = Cages("strict", this_machine(), Ceilings(2**31, 2048), outside)
        executor = await stack.enter_async_context(
            SpawnExecutor(SystemClock(), cages=cages, standby=StandbyBounds(most=0))
        )
        made = Room(RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path), outside)
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, backlog=2048)
        await stack.enter_async_context(server)
        made.port = server.sockets[0].getsockname()[1]
        yield made


@pytest.mark.slow
async def test_a_thousand_connections_at_once_are_served_in_turn(room: Room) -> None:
    lags: list[float] = []
    done = asyncio.Event()

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while not done.is_set():
            begun = loop.time()
            await asyncio.sleep(0.01)
            lags.append(loop.time() - begun - 0.01)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        ended = await room.house.run(
            f"""
            import asyncio, socket
            address = socket.gethostbyname("allowed.test")
            async def one(n):
                reader, writer = await asyncio.open_connection(address, {room.port})
                await asyncio.sleep(0.5)
                writer.write(b"hi\\n")
                told = await reader.read()
                writer.close()
                return told
            async def main():
                told = await asyncio.gather(*(one(n) for n in range(1000)))
                return [len(told), sorted({{each.decode() for each in told}})]
            """,
            permissions=room.permissions,
            limit=50,
        )
        done.set()
    assert ended.value == [1000, ["ok"]]
    assert room.served == 1000
    assert room.most <= MOST_CONNECTIONS
    assert any("connections at once" in message for _, message in ended.log)
    assert sorted(lags)[int(len(lags) * 0.99)] < 0.25


async def test_large_transfers_arrive_whole(room: Room) -> None:
    ended = await room.house.run(
        f"""
        import hashlib, socket
        link = socket.create_connection(("allowed.test", {room.port}))
        link.sendall(b"100\\n")
        told, size = hashlib.sha256(), 0
        while more := link.recv(1 << 18):
            told.update(more)
            size += len(more)
        result = [size, told.hexdigest()]
        """,
        permissions=room.permissions,
    )
    assert ended.value == [100 * len(BLOCK), hashlib.sha256(BLOCK * 100).hexdigest()]


async def test_the_end_of_a_run_breaks_its_connections_and_leaves_nothing_open(room: Room) -> None:
    async def once() -> None:
        room.broken.clear()
        ended = await room.house.run(
            f"""
            import os, socket
            link = socket.create_connection(("allowed.test", {room.port}))
            link.sendall(b"hold\\n")
            link.recv(4)
            os._exit(0)
            """,
            permissions=room.permissions,
        )
        assert ended.exit.exit_code == 0
        async with asyncio.timeout(10):
            await room.broken.wait()

    await once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await once()
    # What watched the last cage is gone a moment after the run.
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)


async def test_what_a_run_sends_last_is_delivered(room: Room) -> None:
    for number in range(5):
        ended = await room.house.run(
            f"""
            import os, socket
            address = socket.gethostbyname("allowed.test")
            link = socket.create_connection((address, {room.port}))
            link.sendall(b"last words {number}\\n")
            os._exit(0)
            """,
            permissions=room.permissions,
        )
        assert ended.exit.exit_code == 0
    await until(lambda: len(room.words) == 5)
    assert room.words == [f"last words {number}".encode() for number in range(5)]


async def test_a_place_where_nobody_listens_is_said_to_be_so(room: Room) -> None:
    free = 1
    permissions = Permissions(net=(f"allowed.test:{free}", f"127.0.0.1:{free}"))
    ended = await room.house.run(
        f"import socket; socket.create_connection(('allowed.test', {free})).recv(1)",
        permissions=permissions,
    )
    assert ended.outcome.status is RunStatus.FAILURE
    assert (Level.WARN, f"cannot connect to allowed.test:{free}: Connection refused") in ended.log


async def test_a_failed_run_names_what_to_add_for_what_it_was_refused(room: Room) -> None:
    ended = await room.house.run(
        "import urllib.request; urllib.request.urlopen('https://other.example/')",
        permissions=room.permissions,
    )
    error = ended.outcome.error
    assert error is not None
    assert 'permissions.net: ["other.example"]' in (error.hint or "")


async def test_a_flood_of_questions_is_slowed_and_others_are_served(room: Room) -> None:
    loop = asyncio.get_running_loop()
    worst = 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal worst
        while not done.is_set():
            begun = loop.time()
            await asyncio.sleep(0.005)
            worst = max(worst, loop.time() - begun - 0.005)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        ended = await room.house.run(
            f"""
            import socket, time
            link = socket.socket(type=socket.SOCK_DGRAM)
            link.connect(("127.0.0.1", 53))
            until = time.monotonic() + 1
            sent = 0
            while time.monotonic() < until:
                try:
                    link.send(b"x" * 40)
                    sent += 1
                except OSError:
                    pass
            with socket.create_connection(("127.0.0.1", {room.port})) as other:
                other.sendall(b"hi\\n")
                result = [sent > 1000, other.recv(10).decode()]
            """,
            permissions=room.permissions,
        )
        done.set()
    assert ended.value == [True, "ok"]
    assert worst < 0.5


async def test_without_namespaces_a_task_with_hosts_is_not_started(tmp_path: Path) -> None:
    probe = Probe(
        landlock=7, seccomp="", files="unshare: Operation not permitted", files_as_root="uid"
    )
    async with SpawnExecutor(SystemClock(), cages=Cages("strict", probe)) as executor:
        house = RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path)
        with pytest.raises(DicodeError, match=r"permissions\.net: hosts are held by") as caught:
            await house.run("pass", permissions=Permissions(net=("api.example.com",)))
    assert caught.value.code is Code.SANDBOX_UNAVAILABLE
    assert "unshare" in (caught.value.hint or "")

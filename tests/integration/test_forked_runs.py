"""Runs that are forks of a warm interpreter: what must not show, and what happens to the server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper, tree
from dicode_mcp.executor.forkserver.pool import Bounds
from dicode_mcp.executor.forkserver.server import ForkServer
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.protocols import Warm
from dicode_mcp.testing.cages import strict_cages, this_machine
from dicode_mcp.testing.forking import QUICK
from dicode_mcp.testing.runtime_house import INSTANCE, Ended, RuntimeHouse
from dicode_mcp.testing.waiting import until
from dicode_runtimes.python import PythonRuntime

pytestmark = pytest.mark.skipif(
    not strict_cages().probe.separates, reason="this machine has no namespaces for runs"
)
HELLO = "def main(): return 'hello'\n"
LONG = """
import os, time
open(os.environ["TMPDIR"] + "/on", "w").close()
time.sleep(0.5)
result = "went on"
"""
WHO = "import os\nresult = os.environ.get('WHO')\n"


class Forking:
    """A house whose runs are forked, and its fork server."""

    def __init__(self, executor: SpawnExecutor, folder: Path, warm: Warm = QUICK) -> None:
        self.executor = executor
        self.runtime = PythonRuntime(warm=warm)
        self.house = RuntimeHouse(self.runtime, ".py", executor, folder)

    async def begin(self, script: str) -> asyncio.Task[Ended]:
        """Begin a run of a script and wait until it says by a file that it is on."""
        run = asyncio.create_task(self.house.run(script))
        await until(lambda: list(self.house.scratch.glob("*/tmp/on")))
        return run

    async def server(self) -> ForkServer:
        kept = self.runtime.warm()
        assert kept is not None
        return await self.executor.forks.until_ready(*kept)


@pytest_asyncio.fixture
async def forking(tmp_path: Path) -> AsyncIterator[Forking]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages(), forks=Bounds(forks=3)) as given:
        forking = Forking(given, tmp_path)
        await forking.server()
        yield forking


async def test_a_run_is_a_fork_of_a_process_that_has_one_thread(forking: Forking) -> None:
    server = await forking.server()
    assert os.listdir(f"/proc/{server.pid}/task") == [str(server.pid)]
    assert (await forking.house.run(HELLO)).value == "hello"
    assert server.forks == 1


async def test_the_first_run_does_not_wait_for_a_fork_server(tmp_path: Path) -> None:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        forking = Forking(executor, tmp_path)
        assert (await forking.house.run(HELLO)).value == "hello"
        assert (await forking.server()).forks == 0


async def test_a_run_survives_its_fork_server_and_the_next_one_needs_none(
    forking: Forking,
) -> None:
    server = await forking.server()
    run = await forking.begin(LONG)
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not server.usable)
    assert (await forking.house.run(HELLO)).value == "hello"
    ended = await run
    assert (ended.value, ended.exit.exit_code) == ("went on", 0)


async def test_a_fork_server_that_was_killed_comes_back_and_is_told_of_once(
    forking: Forking, caplog: pytest.LogCaptureFixture
) -> None:
    server = await forking.server()
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not server.usable)
    # Not at once: it waits a second before it is started again, and runs do not wait for it.
    again = server
    async with asyncio.timeout(20):
        while again is server or not again.usable:
            assert (await forking.house.run(HELLO)).value == "hello"
            kept = forking.executor.forks.pids()
            again = await forking.server() if kept else server
    assert again.pid != server.pid
    told = [r for r in caplog.records if "fork server is gone" in r.message]
    assert len(told) == 1


async def test_a_fork_server_is_replaced_after_its_share_of_runs(forking: Forking) -> None:
    first = await forking.server()
    long = await forking.begin(LONG)
    while first.forks < 3:
        await forking.house.run(HELLO)
    await forking.house.run(HELLO)
    second = await forking.server()
    assert second.pid != first.pid
    assert (await long).value == "went on"


async def test_few_fork_servers_are_kept_the_latest_used_ones(tmp_path: Path) -> None:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages(), forks=Bounds(2)) as executor:
        forking = Forking(executor, tmp_path)
        kept = forking.runtime.warm()
        assert kept is not None
        python, warm = kept
        kinds = [replace(warm, imports=(*warm.imports, name)) for name in ("json", "csv", "glob")]
        for kind in kinds:
            await executor.forks.until_ready(python, kind)
        await until(lambda: len(executor.forks.pids()) == 2)
        first = await executor.forks.until_ready(python, kinds[0])
        assert first.pid in executor.forks.pids()


async def test_another_version_of_the_sdk_is_taken_up_by_the_next_run(tmp_path: Path) -> None:
    become_subreaper()
    sdk = tmp_path / "copy"
    shutil.copytree(Path(QUICK.path) / "dicode_sdk", sdk / "dicode_sdk")
    warm = replace(QUICK, path=str(sdk))
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        forking = Forking(executor, tmp_path, warm)
        first = await forking.server()
        (sdk / "dicode_sdk" / "_api.py").write_text("changed = True\n")
        # It is looked at once a second.
        async with asyncio.timeout(20):
            while (await forking.server()) is first:  # noqa: ASYNC110  It comes by a run alone.
                await asyncio.sleep(0.05)
        assert not first.usable


async def test_a_language_of_its_own_makes_a_run_a_process_of_its_own(forking: Forking) -> None:
    server = await forking.server()
    assert (await forking.house.run(HELLO, env={"LC_ALL": "C"})).value == "hello"
    assert server.forks == 0


async def test_the_environment_is_the_tasks_for_python_for_c_and_in_proc(
    forking: Forking,
) -> None:
    script = """
    import ctypes, os
    get = ctypes.CDLL(None).getenv
    get.restype = ctypes.c_char_p
    print(sorted(os.environ), flush=True)
    result = [os.environ["WHO"], get(b"WHO").decode(), get(b"DICODE_ROOM"),
              b"DICODE_RUN_ID=" + os.environb[b"DICODE_RUN_ID"]
              in open("/proc/self/environ", "rb").read().split(b"\\0")]
    """
    ended = await forking.house.run(script, env={"WHO": "Ada"})
    assert ended.value == ["Ada", "Ada", None, True]
    assert "DICODE_ROOM" not in ended.messages[0]
    assert (await forking.house.run(WHO)).value is None


async def test_a_crashed_servers_forked_runs_are_found_by_their_mark(forking: Forking) -> None:
    server = await forking.server()
    run = await forking.begin(LONG.replace("0.5", "600"))
    # As at the next start: nothing is known of the run, only of the data dir's mark.
    await asyncio.to_thread(tree.sweep, INSTANCE, spare=())
    assert (await run).exit.signal == signal.SIGKILL
    assert server.usable


async def test_no_two_runs_draw_the_same_random_numbers(forking: Forking) -> None:
    script = "import random, uuid, secrets\nresult = [random.random(), str(uuid.uuid4())]\n"
    drawn = [(await forking.house.run(script)).value for _ in range(2)]
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]


async def test_nothing_of_the_server_is_in_a_run(forking: Forking) -> None:
    script = """
    import os, sys, threading
    result = [[n for n in sys.modules if n.startswith("dicode_mcp")], threading.active_count(),
              os.readlink("/proc/self/fd/0"), sys.argv == [__file__], __name__,
              sys.modules["__main__"].__dict__ is globals()]
    """
    assert (await forking.house.run(script)).value == [
        [],
        1,
        "/dev/null",
        True,
        "__main__",
        True,
    ]


@pytest.mark.parametrize("thread", [False, True])
async def test_a_file_left_open_is_written_at_the_end(forking: Forking, thread: bool) -> None:
    script = """
    import os, threading, time
    if THREAD:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    file = open(os.environ["TMPDIR"] + "/left", "w")
    file.write("all of it")
    """
    ended = await forking.house.run(script.replace("THREAD", str(thread)))
    assert ended.exit.exit_code == 0
    assert (ended.scratch / "tmp" / "left").read_text() == "all of it"


async def test_what_is_registered_for_the_end_runs_and_objects_see_theirs(
    forking: Forking,
) -> None:
    script = """
    import atexit
    class Last:
        def __del__(self): print("let go", flush=True)
    kept = Last()
    atexit.register(print, "at exit")
    print("done")
    """
    ended = await forking.house.run(script)
    assert ended.messages == ["done", "at exit", "let go"]


async def test_where_there_are_no_namespaces_a_run_is_a_fork_all_the_same(tmp_path: Path) -> None:
    become_subreaper()
    probe = replace(this_machine(), files="as in some containers", files_as_root="likewise")
    async with SpawnExecutor(SystemClock(), cages=Cages("strict", probe)) as executor:
        forking = Forking(executor, tmp_path)
        server = await forking.server()
        script = "import os, sys\nprint(os.getppid())\nsys.exit(3)\n"
        ended = await forking.house.run(script)
        assert ended.exit.exit_code == 3
        assert ended.messages == [str(os.getpid())]
        assert server.forks == 1

"""Starting processes, and ending them with all they started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor import SpawnExecutor, become_subreaper, tree
from dicode_mcp.protocols import Launch, RawLine, SandboxPolicy
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.spec.model import Permissions

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
INSTANCE = f"unit-{os.getpid()}"


class Bench:
    """Starts shell scripts and keeps their lines."""

    def __init__(self, executor: SpawnExecutor, folder: Path) -> None:
        self.executor = executor
        self.folder = folder
        self.lines: list[RawLine] = []
        self._news = asyncio.Event()

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]

    def sink(self, lines: Sequence[RawLine]) -> None:
        self.lines.extend(lines)
        self._news.set()

    async def seen(self, text: str) -> None:
        async with asyncio.timeout(20):
            while not any(text in line for line in self.texts):
                self._news.clear()
                await self._news.wait()

    def launch(self, *argv: str, run_id: str = "run-1") -> Launch:
        env = {
            "PATH": "/usr/bin:/bin",
            "DICODE_RUN_ID": run_id,
            "DICODE_INSTANCE": INSTANCE,
        }
        policy = SandboxPolicy(Permissions(), self.folder, self.folder)
        return Launch(
            argv, env, self.folder, policy, run_id=run_id, instance_id=INSTANCE, grace_s=0.3
        )

    def shell(self, script: str, run_id: str = "run-1") -> Launch:
        return self.launch("/bin/sh", "-c", script, run_id=run_id)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), LogLimits(10_000, 100)) as executor:
        yield Bench(executor, tmp_path)


async def test_output_comes_in_order_with_its_stream(bench: Bench) -> None:
    process = await bench.executor.start(
        bench.shell("echo one; printf two; exec >&-; sleep 0.05; echo three >&2"), bench.sink
    )
    ended = await process.wait()
    assert ended.exit_code == 0
    assert [(line.stream, line.text) for line in bench.lines] == [
        ("stdout", "one"),
        ("stdout", "two"),
        ("stderr", "three"),
    ]
    assert ended == await process.wait()
    assert ended.cpu_seconds is not None


async def test_exactly_the_declared_environment_reaches_the_process(bench: Bench) -> None:
    process = await bench.executor.start(bench.launch("/usr/bin/env"), bench.sink)
    await process.wait()
    assert sorted(bench.texts) == sorted(
        [f"DICODE_INSTANCE={INSTANCE}", "DICODE_RUN_ID=run-1", "PATH=/usr/bin:/bin"]
    )


async def test_a_full_log_shows_the_newest_lines_after_saying_how_much_is_missing(
    bench: Bench,
) -> None:
    process = await bench.executor.start(
        bench.shell("seq -f 'line %g' 0 299; exit 7"),
        bench.sink,
    )
    ended = await process.wait()
    assert ended.exit_code == 7
    assert bench.texts[:100] == [f"line {n}" for n in range(100)]
    assert bench.texts[101:] == [f"line {n}" for n in range(275, 300)]
    missing = sum(len(f"line {n}\n") for n in range(100, 275))
    assert bench.lines[100].stream == "stderr"
    assert f"{missing:,} bytes of output were left out here" in bench.texts[100]
    assert ended.dropped_bytes == missing


async def test_a_flood_on_one_stream_does_not_wash_away_the_other(bench: Bench) -> None:
    script = "yes | head -c 3000000; echo why >&2; yes | head -c 30000000; exit 7"
    process = await bench.executor.start(bench.shell(script), bench.sink)
    ended = await process.wait()
    assert [line.text for line in bench.lines if line.stream == "stderr"][-1:] == ["why"]
    shown = sum(len(text) + 1 for text in bench.texts if not text.startswith("[dicode]"))
    assert ended.dropped_bytes == 33_000_004 - shown
    # At the end, and at most once every two seconds while it runs.
    marks = [text for text in bench.texts if text.startswith("[dicode]")]
    assert 1 <= len(marks) <= 10


async def test_a_full_log_goes_on_while_the_run_does(bench: Bench) -> None:
    script = "i=0; while [ $i -lt 150 ]; do echo line $i; i=$((i+1)); done; echo alive; sleep 300"
    process = await bench.executor.start(bench.shell(script), bench.sink)
    await bench.seen("alive")
    await process.stop()


async def test_the_end_of_a_line_without_end_is_shown(bench: Bench) -> None:
    script = "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last"
    process = await bench.executor.start(bench.shell(script), bench.sink)
    await process.wait()
    assert bench.texts[-1] == "last"
    assert all(len(text.encode()) <= 64 * 1024 for text in bench.texts)


async def test_a_sink_that_fails_does_not_hold_the_process_up(bench: Bench) -> None:
    def broken(lines: Sequence[RawLine]) -> None:
        raise ValueError("no room")

    process = await bench.executor.start(bench.shell("yes | head -c 1000000; exit 3"), broken)
    assert (await process.wait()).exit_code == 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"argv": ("/no/such/program",)}, Code.RUNTIME_UNAVAILABLE),
        ({"cwd": Path("/no/such/folder")}, Code.TASK_NOT_READY),
        ({"argv": ("/bin/true", "x" * 3_000_000)}, Code.TOO_LARGE),
        ({"files": {"../x": b""}}, Code.INTERNAL),
    ],
)
async def test_what_cannot_start_says_why_and_leaks_nothing(
    bench: Bench, change: dict[str, Any], code: Code
) -> None:
    before = _open_fds()
    ours, theirs = os.pipe()
    launch = replace(bench.shell("true"), **change)
    with pytest.raises(DicodeError) as caught:
        await bench.executor.start(launch, bench.sink, theirs)
    assert caught.value.code is code
    os.close(ours)
    assert _open_fds() == before


@linux
async def test_a_run_leaves_no_descriptor_and_no_zombie(bench: Bench) -> None:
    before = _open_fds()
    for number in range(5):
        process = await bench.executor.start(bench.shell("true", f"r{number}"), bench.sink)
        await process.wait()
        assert tree.read_stat(process.pid) is None
    assert _open_fds() == before


def _open_fds() -> int:
    return len(os.listdir("/dev/fd"))


async def test_files_of_a_launch_are_private_and_in_place(bench: Bench) -> None:
    launch = replace(
        bench.shell("cat sub/a; ls -ld home"), files={"sub/a": b"text\n", "home/": b""}
    )
    process = await bench.executor.start(launch, bench.sink)
    await process.wait()
    assert bench.texts[0] == "text"
    assert bench.texts[1].startswith("drwx------")
    mode = (bench.folder / "sub" / "a").stat().st_mode
    assert mode & 0o777 == 0o600


async def test_a_timeout_ends_a_process_that_ignores_term(bench: Bench) -> None:
    launch = replace(bench.shell("trap '' TERM; while :; do sleep 0.05; done"), timeout_s=0.2)
    process = await bench.executor.start(launch, bench.sink)
    ended = await process.wait()
    assert (ended.timed_out, ended.stopped) == (True, False)
    assert ended.signal == signal.SIGKILL


async def test_a_stopped_process_group_still_dies(bench: Bench) -> None:
    process = await bench.executor.start(bench.shell("echo up; kill -STOP $$"), bench.sink)
    await bench.seen("up")
    await process.stop()
    ended = await process.wait()
    assert ended.stopped
    assert ended.signal == signal.SIGTERM


async def test_background_children_in_the_group_end_with_the_main_process(bench: Bench) -> None:
    process = await bench.executor.start(bench.shell("sleep 300 & sleep 300 & exit 0"), bench.sink)
    ended = await process.wait()
    assert ended.exit_code == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@linux
async def test_a_child_in_its_own_session_is_found_by_its_mark(bench: Bench) -> None:
    process = await bench.executor.start(bench.shell("setsid sleep 300 & exit 0"), bench.sink)
    ended = await process.wait()
    assert ended.strays == 1
    assert _alive("DICODE_RUN_ID=run-1") == []


@linux
async def test_an_orphan_that_wiped_its_environment_is_found_by_the_output_it_holds(
    bench: Bench,
) -> None:
    script = "setsid env -i /bin/sh -c 'sleep 301 & echo $! >pid; exit 0'; exit 0"
    process = await bench.executor.start(bench.shell(script), bench.sink)
    ended = await process.wait()
    assert ended.strays == 1
    assert tree.read_stat(int((bench.folder / "pid").read_text())) is None


@linux
async def test_ending_one_run_leaves_another_and_its_daemons_alone(bench: Bench) -> None:
    other = await bench.executor.start(
        bench.shell("setsid sleep 300 & echo other up; sleep 300", "run-2"), bench.sink
    )
    await bench.seen("other up")
    process = await bench.executor.start(bench.shell("setsid sleep 300 & exit 0"), bench.sink)
    await process.wait()
    assert len(_alive("DICODE_RUN_ID=run-2")) == 3
    await other.stop()
    assert _alive("DICODE_RUN_ID=run-2") == []


@linux
async def test_a_process_started_by_another_part_of_the_server_is_left_alone(
    bench: Bench,
) -> None:
    # This executor does not have the process to itself: see test_executor_orphans.py.
    ours = _sleeper({})
    try:
        process = await bench.executor.start(bench.shell("exit 0"), bench.sink)
        assert (await process.wait()).strays == 0
        assert ours.poll() is None
    finally:
        ours.kill()
        ours.wait()


@linux
async def test_a_bomb_of_fleeing_processes_is_cleared(bench: Bench) -> None:
    script = textwrap.dedent("""
        import os, time
        for _ in range(40):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(300)
                os._exit(0)
        print("up", flush=True)
        time.sleep(300)
    """)
    launch = bench.launch(sys.executable, "-I", "-S", "-c", script)
    process = await bench.executor.start(launch, bench.sink)
    await bench.seen("up")
    await process.stop()
    assert _alive("DICODE_RUN_ID=run-1") == []


async def test_leaving_the_executor_stops_what_still_runs(tmp_path: Path) -> None:
    async with SpawnExecutor(SystemClock()) as executor:
        bench = Bench(executor, tmp_path)
        process = await executor.start(bench.shell("echo up; sleep 300"), bench.sink)
        await bench.seen("up")
    assert (await process.wait()).stopped
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@linux
async def test_sweep_kills_what_a_crashed_server_left_and_nothing_else(bench: Bench) -> None:
    mark = f"DICODE_INSTANCE={INSTANCE}-crashed"
    left = [_sleeper(dict([mark.split("=")])) for _ in range(3)]
    other = _sleeper({"DICODE_INSTANCE": f"{INSTANCE}-crashed-not"})
    try:
        _started(left, mark)
        assert await bench.executor.sweep(f"{INSTANCE}-crashed") == 3
        assert [process.wait() for process in left] == [-signal.SIGKILL] * 3
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert await bench.executor.sweep(f"{INSTANCE}-crashed") == 0


def _sleeper(env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "300"], env=env, start_new_session=True)


def _reaped(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _started(processes: list[subprocess.Popen[bytes]], mark: str) -> None:
    """Wait until the children show their own environment, which they have after their exec."""
    deadline = time.monotonic() + 20
    for process in processes:
        while mark.encode() not in tree.read_environ(process.pid):
            assert time.monotonic() < deadline


@linux
async def test_the_whole_group_dies_when_the_server_is_killed(tmp_path: Path) -> None:
    server = textwrap.dedent("""
        import asyncio, os, signal, sys
        from pathlib import Path
        from dicode_mcp.clock import SystemClock
        from dicode_mcp.executor import SpawnExecutor
        from dicode_mcp.protocols import Launch, SandboxPolicy
        from dicode_mcp.spec.model import Permissions

        async def main(folder):
            policy = SandboxPolicy(Permissions(), folder, folder)
            argv = ("/bin/sh", "-c", "sleep 300 & echo $$ $!; wait")
            launch = Launch(argv, {"PATH": "/usr/bin:/bin"}, folder, policy)
            async with SpawnExecutor(SystemClock()) as executor:
                def sink(lines):
                    print(lines[0].text, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
                await (await executor.start(launch, sink)).wait()

        asyncio.run(main(Path(sys.argv[1])))
    """)
    become_subreaper()  # so that the orphans can be reaped here
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-c", server, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await done.communicate()
    assert done.returncode == -signal.SIGKILL
    pids = [int(word) for word in out.split()]
    assert len(pids) == 2
    assert [_reaped(pid) for pid in pids] == [-signal.SIGKILL] * 2


@linux
def test_processes_started_after_the_main_one_are_among_the_recent_pids() -> None:
    main = _sleeper({})
    later = _sleeper({})
    try:
        recent = tree.recent_pids(main.pid)
        assert recent is not None
        assert later.pid in recent
        assert main.pid not in recent
    finally:
        for process in (main, later):
            process.kill()
            process.wait()


async def test_an_executor_without_cages_says_that_it_confines_nothing(bench: Bench) -> None:
    told = bench.executor.enforcement()
    assert not told.ok
    assert "confines nothing" in told.message


def _alive(mark: str) -> list[int]:
    alive: list[int] = []
    for pid in tree.all_pids():
        stat = tree.read_stat(pid)
        if stat is None or stat.dead:
            continue
        environ = tree.read_environ(pid)
        if mark.encode() in environ and f"DICODE_INSTANCE={INSTANCE}".encode() in environ:
            alive.append(pid)
    return alive

"""A server process that has its children to itself, for tests of what runs leave behind.

    python lonely_server.py SCENARIO FOLDER

Starts no process but launches (and, where a scenario says so, strangers), and prints what it saw
as one line of JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicode_mcp import children as own_children
from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, Strangers, take_process, tree
from dicode_mcp.executor.orphans import Orphans, children
from dicode_mcp.executor.process import SpawnedProcess
from dicode_mcp.protocols import Launch, RawLine, SandboxPolicy
from dicode_mcp.spec.model import Permissions
from dicode_mcp.testing.waiting import until

WIPED = """
    import subprocess, sys, time
    quiet = {} if "loud" in sys.argv else dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    left = subprocess.Popen(["sleep", "300"], start_new_session=True, env={}, **quiet)
    print("left", left.pid, flush=True)
    if "stay" in sys.argv:
        time.sleep(300)
    if "fail" in sys.argv:
        raise SystemExit(3)
"""
THREADED = """
    import subprocess, sys, time
    code = '''
    import ctypes, os, threading
    libc = ctypes.CDLL(None)
    threading.Thread(target=libc.sleep, args=(300,)).start()
    libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit of one thread
    '''
    code = "\\n".join(line.strip() for line in code.splitlines())
    left = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], start_new_session=True,
                            env={}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while ") Z " not in open(f"/proc/{left.pid}/stat").read():
        time.sleep(0.01)
    print("left", left.pid, flush=True)
"""


class Bench:
    """Starts scripts and knows what they said."""

    def __init__(self, executor: SpawnExecutor, folder: Path) -> None:
        self.executor = executor
        self.folder = folder
        self._said: dict[str, asyncio.Future[int]] = {}

    async def start(
        self, name: str, script: str, *words: str, limit_s: float | None = None
    ) -> SpawnedProcess:
        """Start a script; words are its arguments."""
        self._said[name] = asyncio.get_running_loop().create_future()
        argv = (sys.executable, "-I", "-S", "-c", textwrap.dedent(script), *words)
        env = {"PATH": "/usr/bin:/bin", "DICODE_RUN_ID": name, "DICODE_INSTANCE": "lonely"}
        policy = SandboxPolicy(Permissions(), self.folder, self.folder)
        launch = Launch(argv, env, self.folder, policy, run_id=name, instance_id="lonely")
        launch = replace(launch, grace_s=0.5, timeout_s=limit_s)

        def sink(lines: Sequence[RawLine]) -> None:
            for line in lines:
                if line.text.startswith("left") and not self._said[name].done():
                    self._said[name].set_result(int(line.text.split()[1]))

        return await self.executor.start(launch, sink)

    async def left(self, name: str) -> int:
        """Wait until a script has said what it leaves."""
        async with asyncio.timeout(30):
            return await self._said[name]


def exists(pid: int) -> bool:
    return tree.read_stat(pid) is not None


async def next_tick() -> None:
    """Let the clock of process starts go on, so that earlier and later can be told apart."""
    await asyncio.sleep(2 / os.sysconf("SC_CLK_TCK"))


async def ends(bench: Bench, how: str) -> dict[str, Any]:
    words = {"failure": ("fail",), "success": ()}.get(how, ("stay",))
    limit = 1.0 if how == "timeout" else None
    process = await bench.start("a", WIPED, *words, limit_s=limit)
    left = await bench.left("a")
    if how == "cancel":
        await process.stop()
    ended = await process.wait()
    code = (ended.exit_code, ended.signal)
    return {"code": code, "timed_out": ended.timed_out, "strays": ended.strays} | _after(left)


def _after(left: int) -> dict[str, Any]:
    return {"alive": exists(left), "children": children()}


async def threaded(bench: Bench) -> dict[str, Any]:
    process = await bench.start("a", THREADED)
    left = await bench.left("a")
    return {"strays": (await process.wait()).strays} | _after(left)


async def older(bench: Bench) -> dict[str, Any]:
    """Another run is on that began after the orphan did."""
    first = await bench.start("a", WIPED, "stay")
    left = await bench.left("a")
    await next_tick()
    other = await bench.start("b", WIPED, "stay")
    others = await bench.left("b")
    await first.stop()
    seen = {"alive": exists(left), "other": exists(other.pid), "others": exists(others)}
    await other.stop()
    return seen | {"children": children()}


async def younger(bench: Bench, word: str = "quiet") -> dict[str, Any]:
    """Another run is on, a daemon say, that began before the orphan did."""
    other = await bench.start("b", WIPED, "stay")
    await bench.left("b")
    await next_tick()
    first = await bench.start("a", WIPED, "stay", word)
    left = await bench.left("a")
    await first.stop()
    seen = {"alive": exists(left), "other": exists(other.pid)}
    await other.stop()
    return seen | {"later": exists(left), "children": children()}


async def together(bench: Bench) -> dict[str, Any]:
    names = [f"r{n}" for n in range(6)]
    runs = [await bench.start(name, WIPED, "stay") for name in names]
    left = [await bench.left(name) for name in names]
    await asyncio.gather(*(run.stop() for run in runs))
    strays = [(await run.wait()).strays for run in runs]
    alive = [pid for pid in left if exists(pid)]
    return {"alive": alive, "strays": sum(strays), "children": children()}


async def tending(bench: Bench) -> dict[str, Any]:
    """What is left with no run on: a zombie is reaped, a living orphan is killed."""
    orphans = Orphans(Strangers.NONE)
    living, dead = _orphan(), _orphan()
    os.kill(dead, 9)
    await asyncio.to_thread(os.waitid, os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    before = sorted(children()) == sorted([living, dead])
    while children():
        orphans.tend()
        await asyncio.sleep(0.01)
    return {"before": before, "alive": exists(living), "zombie": exists(dead)}


def _orphan() -> int:
    """Leave a process behind as its own parent's orphan."""
    line = "setsid sleep 300 >/dev/null 2>&1 & echo $!"
    out = subprocess.run(["sh", "-c", line], env={}, capture_output=True, check=True).stdout
    return int(out)


async def helpers(bench: Bench) -> dict[str, Any]:
    """The server's own programs are on while runs end and orphans are tended."""
    orphans = Orphans(Strangers.NONE)
    argv = ["sh", "-c", "sleep 1; echo whole"]
    own = asyncio.create_task(asyncio.to_thread(own_children.run, argv, timeout=30, env=os.environ))
    other = await own_children.start("sleep", "300")
    await until(lambda: len(children()) == 2)
    process = await bench.start("a", WIPED)
    left = await bench.left("a")
    await process.wait()
    orphans.tend()
    told = await own
    seen = {"said": told.stdout.decode(), "code": told.returncode, "other": exists(other.pid)}
    other.kill()
    await own_children.waited(other)
    return seen | {"code_of_other": other.returncode} | _after(left)


class Strange:
    """Children from before this process became a server; one leaves an orphan when told."""

    def __init__(self) -> None:
        argv = ["sh", "-c", "read x; sleep 300 >/dev/null 2>&1 & echo $!"]
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)
        self.sleeper = subprocess.Popen(["sleep", "300"], env={}, start_new_session=True).pid

    def leave(self) -> int:
        """Give the orphan."""
        return int(self._parent.communicate("go\n")[0])

    def end(self, *pids: int) -> None:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


async def with_stranger(folder: Path) -> dict[str, Any]:
    strange = Strange()
    strangers = take_process()
    async with SpawnExecutor(SystemClock(), strangers=strangers) as executor:
        bench = Bench(executor, folder)
        process = await bench.start("a", WIPED, "stay", "loud")
        left = await bench.left("a")
        orphan = strange.leave()
        await process.stop()
        seen = {"alive": exists(left), "orphan": exists(orphan), "sleeper": exists(strange.sleeper)}
    strange.end(orphan, strange.sleeper)
    return {"strangers": strangers.name} | seen


SCENARIOS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "ends": ends,
    "threaded": threaded,
    "older": older,
    "younger": younger,
    "together": together,
    "tending": tending,
    "helpers": helpers,
}


async def main(scenario: str, words: list[str], folder: Path) -> dict[str, Any]:
    if scenario == "with_stranger":
        return await with_stranger(folder)
    strangers = take_process()
    assert strangers is Strangers.NONE
    async with SpawnExecutor(SystemClock(), strangers=strangers) as executor:
        return await SCENARIOS[scenario](Bench(executor, folder), *words)


if __name__ == "__main__":
    # PR_SET_PDEATHSIG: this process does not outlive the test that started it.
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[3:], Path(sys.argv[2])))))

"""A run of a hello task: one at a time, our own share of it, and eight at once.

Our share is what the server adds to the child. The child's part is measured by starting the very
launch that the Python runtime makes for this task, with its start frame already in the socket, and
waiting for its exit. Both are measured in turn, and the share is the median of the differences.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Limit, Result, figure
from bench.folders import HELLO_MANIFEST, HELLO_SCRIPT, write_task
from bench.house import House, serving
from bench.proc import cpu_ms, memory
from bench.row import Plan, Row, Unmeasurable
from bench.spawn import AT_ONCE, F0, WarmFork, bare, bare_ms, rate_at_once, warm_fork
from bench.wire import Line, call_message, line_to, value_of
from dicode_mcp.ipc.frames import PROTOCOL, encode
from dicode_mcp.protocols import Launch, LaunchContext
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger
from dicode_mcp.spec.loader import TaskLoader
from dicode_runtimes.python import PythonRuntime

_TASK = "hello"
_MODES = {
    "hello": "a process that waited for it (standby)",
    "forkserver": "a fork of the warm interpreter",
    "cold": "a process of its own: its LC_ALL makes it one",
    "packaged": "a fork of the warm interpreter of its PEP 723 environment",
}
_TASKS = ("hello", "cold", "packaged")
_COLD_MANIFEST = f"{HELLO_MANIFEST}permissions:\n  env: [LC_ALL=C.UTF-8]\n"
_BLOCK = "# /// script\n# dependencies = []\n# ///\n"
_READY_S = 60.0


def measure(plan: Plan) -> Iterator[Result]:
    tasks = plan.room / "tasks"
    folder = _write_tasks(tasks)
    number = len(_TASKS)
    with (
        serving(plan.room, tasks, number, standby=1) as house,
        _without_standby(plan, tasks) as plain,
        warm_fork() as warm,
    ):
        child = Child(folder, plan.room)
        samples = _one_by_one(house, plain, warm, child, plan.times(120, 25))
        held = [memory(pid).pss for pid in _fork_servers(house)]
    yield from samples.results()
    yield Result(
        name="run.forkserver-memory",
        what="memory (PSS) of an idle fork server: one for the server's interpreter and each of up "
        "to three environments",
        ours=figure("PSS", "MB", held),
    )


def _write_tasks(tasks: Path) -> Path:
    folder = write_task(tasks, _TASK, HELLO_MANIFEST, HELLO_SCRIPT)
    write_task(tasks, "cold", _COLD_MANIFEST, HELLO_SCRIPT)
    write_task(tasks, "packaged", HELLO_MANIFEST, _BLOCK + HELLO_SCRIPT)
    return folder


@dataclass(frozen=True, slots=True)
class _Samples:
    runs: dict[str, list[float]]
    child: list[float]
    bare: list[float]
    warm: list[float]
    cpu_ms: list[float]

    def results(self) -> Iterator[Result]:
        bare = figure(F0, "ms", self.bare)
        for task, mode in _MODES.items():
            yield Result(
                name="run" if task == _TASK else f"run.{task}",
                what=f"run_task hello (Python, strict sandbox) over the socket, call → stored "
                f"result, one at a time, as {mode}",
                ours=figure("run_task", "ms", self.runs[task]),
                floor=bare,
                limits=(Limit("ratio", "<=", 1.5 if task == "cold" else 0.6),),
            )
        yield Result(
            name="run.warm-floor",
            what="the floor of a warm run: fork and exec code in a warm interpreter",
            ours=figure("fork + exec code", "ms", self.warm),
            floor=bare,
        )
        yield Result(
            name="run.child",
            what="the child alone, without a sandbox: the same Launch started directly",
            ours=figure("child", "ms", self.child),
            floor=bare,
        )
        shares = [ours - child for ours, child in zip(self.runs["cold"], self.child, strict=True)]
        yield Result(
            name="run.share",
            what="what server and sandbox add to a process of its own: cold run minus child",
            ours=figure("run - child", "ms", shares),
            limits=(Limit("p50", "<=", 3),),
        )
        yield Result(
            name="run.own-share",
            what="our own share of a run: the server's processor time for one with standby, "
            "everything but its process (the next one's making is in it)",
            ours=figure("server, processor time", "ms", self.cpu_ms),
            limits=(Limit("p50", "<=", 3),),
        )


@contextmanager
def _without_standby(plan: Plan, tasks: Path) -> Generator[House]:
    room = plan.room / "plain"
    room.mkdir()
    with serving(room, tasks, len(_TASKS), standby=0) as house:
        yield house


def _one_by_one(house: House, plain: House, warm: WarmFork, child: Child, times: int) -> _Samples:
    samples = _Samples({task: [] for task in _MODES}, [], [], [], [])
    with line_to(house.socket) as line, line_to(plain.socket) as other:
        _await_warm(house, line)
        _await_warm(plain, other)
        for _ in range(3):
            for once in (lambda: _run_ms(line), child.ms, bare_ms, warm.ms):
                once()
        for _ in range(times):
            before = cpu_ms(house.pid)
            samples.runs[_TASK].append(_run_ms(line))
            for task in ("cold", "packaged"):
                samples.runs[task].append(_run_ms(other, task))
            samples.runs["forkserver"].append(_run_ms(other))
            samples.child.append(child.ms())
            samples.bare.append(bare_ms())
            samples.warm.append(warm.ms())
            samples.cpu_ms.append(cpu_ms(house.pid) - before)
    return samples


def _await_warm(house: House, line: Line) -> None:
    """Wait for the environment, and for the fork servers that the first runs begin."""
    until = time.monotonic() + _READY_S
    while True:
        told = [value_of(line.ask(call_message("run_task", {"id": t}))) for t in _TASKS]
        if all(run.get("status") == "success" for run in told) and len(_fork_servers(house)) > 1:
            return
        if time.monotonic() > until:
            raise Unmeasurable(f"the tasks do not become warm: {told}")
        time.sleep(0.2)


def _fork_servers(house: House) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{house.pid}/task").iterdir():
        for word in (thread / "children").read_text().split():
            try:
                argv = Path(f"/proc/{word}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if b"serve" in argv:
                found.append(int(word))
    return found


def _run_ms(line: Line, task: str = _TASK) -> float:
    message = call_message("run_task", {"id": task, "wait_seconds": 30})
    began = time.perf_counter()
    answer = line.ask(message)
    took = (time.perf_counter() - began) * 1000
    _check(answer)
    return took


def _check(answer: bytes) -> None:
    run = value_of(answer)
    if run["status"] != "success" or run["return_value"] != "hello":
        raise Unmeasurable(f"hello ended as {run}")


class Child:
    """The launch of a task, started without the server."""

    def __init__(self, folder: Path, room: Path) -> None:
        self._launch = _launch(folder, room)
        for name in ("home", "tmp"):
            (room / "scratch" / name).mkdir(parents=True)
        start: dict[str, Any] = {
            "protocol": PROTOCOL,
            "server": "bench",
            "run_id": self._launch.run_id,
            "task_id": _TASK,
            "attempt": 1,
            "params": {},
            "input": None,
            "request": None,
        }
        self._frame = encode({"start": start})

    def ms(self) -> float:
        """Time one child from spawn to exit."""
        began = time.perf_counter()
        ours, pid = self.start()
        with ours:
            _, status = os.waitpid(pid, 0)
            took = (time.perf_counter() - began) * 1000
            if status or b'"finish"' not in ours.recv(65536):
                raise Unmeasurable(f"the child ended with status {status}")
        return took

    def start(self) -> tuple[socket.socket, int]:
        """Start one child; gives our end of its socket and its pid."""
        ours, theirs = socket.socketpair()
        ours.sendall(self._frame)
        with theirs:
            fd = theirs.fileno()
            popen = subprocess.Popen(
                self._launch.argv,
                env={**self._launch.env, "DICODE_IPC_FD": str(fd)},
                cwd=self._launch.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(fd,),
                start_new_session=True,
            )
        popen.returncode = 0  # waited for by its pid, not by Popen
        return ours, popen.pid


def _launch(folder: Path, room: Path) -> Launch:
    runtime = PythonRuntime()
    loader = TaskLoader(
        runtimes={runtime.name: runtime.scripts},
        environ={},
        home=room,
        data_dir=room / "data",
        config_dir=room,
    )
    task = loader.load(folder, task_id=_TASK, source="bench", source_root=folder.parent)
    run = Run("0" * 26, _TASK, RunStatus.RUNNING, Trigger.MCP, 0)
    context = LaunchContext(run, task, Payload(), {}, room / "scratch", "bench")
    return runtime.prepare(context)


# ── Eight at once ──


def measure_throughput(plan: Plan) -> Iterator[Result]:
    tasks = plan.room / "tasks"
    folder = _write_tasks(tasks)
    child = Child(folder, plan.room)
    ours: dict[str, list[float]] = {task: [] for task in _TASKS}
    bare_rates: list[float] = []
    child_rates: list[float] = []
    number = plan.times(96, 32)
    with serving(plan.room, tasks, len(_TASKS)) as house, line_to(house.socket) as line:
        _await_warm(house, line)
        _rate(line, AT_ONCE, _TASK)
        for _ in range(plan.times(7, 3)):
            for task, rates in ours.items():
                rates.append(_rate(line, number, task))
            bare_rates.append(rate_at_once(number, bare))
            child_rates.append(_child_rate(child, number))
    t0 = figure("T0 = eight F0 at once", "/s", bare_rates)
    modes = {**_MODES, _TASK: _MODES["forkserver"]}
    for task, mode in ((task, modes[task]) for task in _TASKS):
        yield Result(
            name="throughput" if task == _TASK else f"throughput.{task}",
            what=f"run_task hello, {AT_ONCE} at once over one connection, rounds of {number} runs, "
            f"each {mode}",
            ours=figure("runs", "/s", ours[task]),
            floor=t0,
            limits=(Limit("ratio", ">=", 0.85 if task == "cold" else 2.0),),
        )
    yield Result(
        name="throughput.child",
        what=f"the children alone, {AT_ONCE} at once, without a sandbox",
        ours=figure("children", "/s", child_rates),
        floor=t0,
    )


def _rate(line: Line, number: int, task: str) -> float:
    """Keep eight calls open on one connection; gives runs a second."""
    began = time.perf_counter()
    sent = 0
    answers: list[bytes] = []
    while len(answers) < number:
        while sent < number and sent - len(answers) < AT_ONCE:
            sent += 1
            line.send(call_message("run_task", {"id": task, "wait_seconds": 50}, sent))
        answers.append(line.receive())
    rate = number / (time.perf_counter() - began)
    for answer in answers:
        _check(answer)
    return rate


def _child_rate(child: Child, number: int) -> float:
    ends: list[socket.socket] = []

    def start() -> int:
        ours, pid = child.start()
        ends.append(ours)
        return pid

    try:
        return rate_at_once(number, start)
    finally:
        for end in ends:
            end.close()


ROW = Row("run", "run_task hello, one at a time, and our own share of it", measure)
THROUGHPUT = Row("throughput", "runs a second, eight at once", measure_throughput)

"""Tasks that take all they can get: how quickly is everybody else answered meanwhile?

A bomb of forks, 4 GiB of memory and 1 GiB of log, one after the other; the floor is the same calls
at rest. Each must end by the limit that is meant for it, or nothing was measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from bench.figures import Limit, Result, figure
from bench.folders import write_task
from bench.house import House, serving
from bench.row import Plan, Row, Unmeasurable
from bench.wire import call_message, line_to

_PACE_S = 0.005
_CALM_S = 2.0
_LONGEST_S = 120.0
_BOMB = """\
import os, time

def main():
    until = time.monotonic() + 2
    while time.monotonic() < until:
        try:
            os.fork()
        except OSError:
            pass
    while True:
        os.fork()
"""
_HOG = (
    "def main():\n    blocks = []\n    for _ in range(512):\n"
    "        blocks.append(bytearray(8 * 1024 * 1024))\n"
)
_FLOOD = """\
import os

def main():
    block = (b"y" * 127 + b"\\n") * 8192
    for _ in range(1024):
        left = memoryview(block)
        while left:
            left = left[os.write(1, left):]
"""
_MANIFEST = (
    "name: Hostile\nruntime: python\ntrigger: {manual: true}\ntimeout: 5m\n"
    "resources: {memory: MEMORY}\n"
)
_CASES = (
    ("bomb", "a fork bomb", _BOMB, "limit of 512 processes"),
    ("hog", "4 GiB of memory", _HOG, "memory limit 256 MiB"),
    ("flood", "1 GiB of log", _FLOOD, "max_log_bytes"),
)


def measure(plan: Plan) -> Iterator[Result]:
    tasks = plan.room / "tasks"
    for name, _, script, _ in _CASES:
        # Enough for the bomb to come to its limit of processes, which is the server's own.
        memory = "4GiB" if name == "bomb" else "256MiB"
        write_task(tasks, name, _MANIFEST.replace("MEMORY", memory), script)
    with serving(plan.room, tasks, len(_CASES)) as house:
        for name, what, _, limit in _CASES:
            busy: list[float] = []
            calm = _status_for(house, _CALM_S)
            for _ in range(plan.times(5, 1)):
                busy += _meanwhile(house, name, limit)
            yield Result(
                name=f"hostile.{name}",
                what=f"get_status every 5 ms while a task tries {what}",
                ours=figure("meanwhile", "ms", busy),
                floor=figure("the same calls at rest", "ms", calm),
                limits=(Limit("p99", "<=", 100),),
            )


def _meanwhile(house: House, task: str, limit: str) -> list[float]:
    """Run a task to its end, which must name its limit; gives how long other calls took."""
    over = threading.Event()
    told: list[str] = []

    def run() -> None:
        try:
            told.append(_ended(house, task))
        finally:
            over.set()

    runner = threading.Thread(target=run)
    runner.start()
    found = _status_until(house, over)
    runner.join()
    if not told or limit not in told[0]:
        raise Unmeasurable(f"{task} did not end by its limit: {told}")
    return found


def _ended(house: House, task: str) -> str:
    """Run a task; gives what its error and its log say of limits."""
    until = time.monotonic() + _LONGEST_S
    with line_to(house.socket) as line:
        run: dict[str, Any] = line.call("run_task", id=task, wait_seconds=50)
        while run["status"] in ("queued", "running") and time.monotonic() < until:
            run = line.call("get_run", run_id=run["run_id"], wait_seconds=50)
        logs = line.call("get_logs", run_id=run["run_id"], level="warn", tail=5)
    return f"{run.get('error')} {[entry['message'] for entry in logs['lines']]}"


def _status_for(house: House, seconds: float) -> list[float]:
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.start()
    try:
        return _status_until(house, over)
    finally:
        timer.cancel()


def _status_until(house: House, over: threading.Event) -> list[float]:
    message = call_message("get_status", {})
    times: list[float] = []
    with line_to(house.socket) as line:
        while not over.is_set():
            began = time.perf_counter()
            line.ask(message)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(_PACE_S)
    return times


ROW = Row("hostile", "the server's answers while tasks take all they can get", measure)

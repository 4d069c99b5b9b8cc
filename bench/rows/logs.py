"""A task prints as fast as it can: how many lines a second are stored, and who else suffers?

The floor is a bare interpreter that prints the same lines into a pipe that is read and split.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Limit, Result, figure
from bench.folders import FLOOD_MANIFEST, FLOOD_SCRIPT, write_task
from bench.house import House, serving
from bench.row import Plan, Row, Unmeasurable
from bench.spawn import interpreter
from bench.wire import call_message, line_to

_TASK = "flood"
_LINES = 100_000
"""The most that a run's log takes by default."""
_PACE_S = 0.005
_ON_DISK_S = 5.0
_CHUNK = 256 * 1024

_PRINTER = f"""\
import sys
params = {{"lines": {_LINES}}}
{FLOOD_SCRIPT}
sys.stdout.reconfigure(line_buffering=True)
main(params)
"""


@dataclass(frozen=True, slots=True)
class _Samples:
    rate: list[float]
    floor: list[float]
    disk_ms: list[float]
    calm: list[float]
    busy: list[float]


def measure(plan: Plan) -> Iterator[Result]:
    tasks = plan.room / "tasks"
    write_task(tasks, _TASK, FLOOD_MANIFEST, FLOOD_SCRIPT)
    with serving(plan.room, tasks, 1) as house:
        samples = _floods(house, plan.times(7, 2))
    lag = figure("on disk", "ms", samples.disk_ms)
    yield Result(
        name="logs",
        what=f"a task prints {_LINES:,} lines: call → run ended and every line stored, a second",
        ours=figure("stored", "/s", samples.rate),
        floor=figure("a pipe read and split, spawn to end", "/s", samples.floor),
        limits=(Limit("p50", ">=", 20_000),),
        notes=(f"the last line is on disk {lag.p50:.0f} ms after the answer",),
        also={"on_disk_after_ms": lag.p50},
    )
    yield Result(
        name="logs.meanwhile",
        what="get_status on another connection meanwhile, one call every 5 ms",
        ours=figure("get_status under the flood", "ms", samples.busy),
        floor=figure("the same calls at rest", "ms", samples.calm),
        limits=(Limit("p99", "<=", 50),),
    )


def _floods(house: House, times: int) -> _Samples:
    samples = _Samples([], [], [], [], [])
    for _ in range(times):
        samples.floor.append(_pipe_rate())
        calm = threading.Event()
        threading.Timer(0.5, calm.set).start()
        samples.calm.extend(_status_until(house, calm))
        rate, disk_ms, busy = _flood(house)
        samples.rate.append(rate)
        samples.disk_ms.append(disk_ms)
        samples.busy.extend(busy)
    return samples


def _flood(house: House) -> tuple[float, float, list[float]]:
    """Run the task once; gives lines a second, ms until all are on disk, the calls meanwhile."""
    over = threading.Event()
    found: list[tuple[float, float]] = []

    def run() -> None:
        try:
            found.append(_stored(house))
        finally:
            over.set()

    runner = threading.Thread(target=run)
    runner.start()
    busy = _status_until(house, over)
    runner.join()
    if not found:
        raise Unmeasurable("the flood did not end well")
    return (*found[0], busy)


def _stored(house: House) -> tuple[float, float]:
    with line_to(house.socket) as line:
        began = time.perf_counter()
        run = line.call("run_task", id=_TASK, params={"lines": _LINES}, wait_seconds=55)
        took = time.perf_counter() - began
        if run["status"] != "success":
            raise Unmeasurable(f"the flood ended as {run['status']}: {run.get('error')}")
        last = line.call("get_logs", run_id=run["run_id"], tail=1)["lines"]
        if not last or last[-1]["seq"] != _LINES:
            raise Unmeasurable("not every line was stored")
    return _LINES / took, _on_disk_ms(house.data / "logs.db", run["run_id"])


def _on_disk_ms(path: Path, run_id: str) -> float:
    """Wait until the database itself has the last line; gives the ms."""
    began = time.perf_counter()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        while time.perf_counter() - began < _ON_DISK_S:
            (last,) = database.execute(
                "SELECT max(last_seq) FROM log_chunks WHERE run_id = ?", (run_id,)
            ).fetchone()
            if last == _LINES:
                return (time.perf_counter() - began) * 1000
            time.sleep(0.002)
    raise Unmeasurable(f"the lines were not on disk after {_ON_DISK_S:g} s")


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


def _pipe_rate() -> float:
    argv = [interpreter(), "-I", "-S", "-c", _PRINTER]
    began = time.perf_counter()
    lines = 0
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        rest = b""
        while data := os.read(process.stdout.fileno(), _CHUNK):
            *whole, rest = (rest + data).split(b"\n")
            lines += len(whole)
    if lines != _LINES:
        raise Unmeasurable(f"the floor printed {lines} lines")
    return lines / (time.perf_counter() - began)


ROW = Row("logs", "log ingest, and the server's answers meanwhile", measure)

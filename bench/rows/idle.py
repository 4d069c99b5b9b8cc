"""What the server holds and burns while nothing happens, with 1,000 tasks in a watched folder.

The floor is the SDK's server alone with its echo tool, at the same time on the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.echo import echoing
from bench.figures import Limit, Result, figure
from bench.folders import write_reports
from bench.house import serving
from bench.proc import Memory, cpu_ms, memory
from bench.row import Plan, Row
from bench.wire import call_message, line_to

_TASKS = 1_000
_SETTLE_S = 2.0
_SLICE_S = 1.0


def measure(plan: Plan) -> Iterator[Result]:
    tasks = plan.room / "tasks"
    write_reports(tasks, _TASKS)
    with serving(plan.room, tasks, _TASKS) as house, echoing(plan.room) as echo:
        with line_to(echo.socket) as line:
            line.ask(call_message("echo", {"text": "hello"}))
        time.sleep(_SETTLE_S)
        pids = (house.pid, echo.pid)
        slices = plan.times(20, 10)
        held: tuple[list[Memory], list[Memory]] = ([], [])
        burnt: tuple[list[float], list[float]] = ([], [])
        before = [cpu_ms(pid) for pid in pids]
        for _ in range(slices):
            time.sleep(_SLICE_S)
            for side, pid in enumerate(pids):
                held[side].append(memory(pid))
                now = cpu_ms(pid)
                burnt[side].append((now - before[side]) / _SLICE_S / 10)
                before[side] = now
    yield _memory(*held)
    yield _cpu(slices, *burnt)


def _memory(ours: list[Memory], floor: list[Memory]) -> Result:
    pss = figure("PSS", "MB", [one.pss for one in ours])
    return Result(
        name="idle.memory",
        what=f"resident memory (RSS) of the server at rest, {_TASKS:,} tasks",
        ours=figure("RSS", "MB", [one.rss for one in ours]),
        floor=figure("the SDK's server alone, RSS", "MB", [one.rss for one in floor]),
        limits=(Limit("p50", "<=", 100),),
        notes=(f"PSS {pss.p50:.0f} MB",),
        also={"pss_mb": pss.p50},
    )


def _cpu(slices: int, ours: list[float], floor: list[float]) -> Result:
    mean = sum(ours) / len(ours)
    return Result(
        name="idle.cpu",
        what=f"processor time at rest in percent of a core, {slices} slices of a second",
        ours=figure("CPU", "%", ours),
        floor=figure("the SDK's server alone", "%", floor),
        limits=(Limit("p50", "<=", 0.5),),
        notes=(f"the mean is {mean:.2f} %",),
        also={"mean_percent": mean},
    )


ROW = Row("idle", "idle memory and CPU with 1,000 tasks", measure)

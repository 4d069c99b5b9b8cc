"""From the spawn of the server to its first answer with every task registered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench.figures import Limit, Result, figure
from bench.folders import write_reports
from bench.house import serving
from bench.row import Plan, Row

_BUDGET_S = {1_000: 1.5, 10_000: 12.0}


def measure(plan: Plan) -> Iterator[Result]:
    yield _result(plan, 1_000, plan.times(5, 1))
    if not plan.quick:
        yield _result(plan, 10_000, 3)


def _result(plan: Plan, number: int, times: int) -> Result:
    tasks, none = plan.room / str(number), plan.room / f"none-{number}"
    write_reports(tasks, number)
    none.mkdir()
    ours: list[float] = []
    floor: list[float] = []
    empty: list[float] = []
    read_once(tasks)
    for turn in range(times):
        floor.append(read_once(tasks))
        ours.append(_start(plan.room / f"full-{number}-{turn}", tasks, number))
        if number == min(_BUDGET_S):
            empty.append(_start(plan.room / f"empty-{turn}", none, 0))
    also = {"empty_start_s": figure("start without tasks", "s", empty).p50} if empty else {}
    return Result(
        name=f"start.{number}",
        what=f"spawn of the server on a new data dir → first answer, {number:,} tasks registered",
        ours=figure("start", "s", ours),
        floor=figure("reading the files and parsing the manifests once, warm", "s", floor),
        limits=(Limit("p50", "<=", _BUDGET_S[number]),),
        notes=tuple(f"without tasks the start takes {seconds:.2f} s" for seconds in also.values()),
        also=also,
    )


def _start(room: Path, tasks: Path, number: int) -> float:
    room.mkdir()
    with serving(room, tasks, number) as house:
        return house.answered_s


def read_once(tasks: Path) -> float:
    """Read every file below ``tasks`` and parse the manifests with the C parser; gives seconds."""
    began = time.perf_counter()
    for folder in tasks.iterdir():
        for path in folder.iterdir():
            data = path.read_bytes()
            if path.suffix == ".yaml":
                yaml.load(data, Loader=yaml.CSafeLoader)
    return time.perf_counter() - began


ROW = Row("start", "start with 1,000 and 10,000 tasks → all registered", measure)

"""The first page of ``get_runs`` when the table of runs is long, against a table of one page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bench.figures import Limit, Result, figure
from bench.folders import write_reports
from bench.house import House, serving
from bench.row import Plan, Row, Unmeasurable
from bench.seed import KEPT, TASKS, seed_runs
from bench.wire import Line, call_message, line_to, value_of

_FEW = 200

_QUESTIONS = {
    "all": {},
    "task": {"task": "report-00007"},
    "failures": {"status": "failure"},
}


def measure(plan: Plan) -> Iterator[Result]:
    number = plan.times(1_000_000, 100_000)
    tasks = plan.room / "tasks"
    write_reports(tasks, TASKS)
    with (
        _seeded(plan.room / "many", tasks, number) as many,
        _seeded(plan.room / "few", tasks, _FEW) as few,
        line_to(many.socket) as ours,
        line_to(few.socket) as floor,
    ):
        status_ms = [_ask_ms(ours, call_message("get_status", {})) for _ in range(20)]
        for name, arguments in _QUESTIONS.items():
            message = call_message("get_runs", arguments)
            found = len(value_of(ours.ask(message))["runs"])
            if not found:
                raise Unmeasurable(f"get_runs {arguments} found nothing")
            yield _result(plan, name, number, found, (ours, floor), message)
        slow = figure("get_status", "ms", status_ms)
        yield Result(
            name="runs.status",
            what=f"get_status with {number:,} run rows, a seventh of them of the last day",
            ours=slow,
        )


def _result(
    plan: Plan, name: str, number: int, found: int, lines: tuple[Line, Line], message: bytes
) -> Result:
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(plan.times(200, 60)):
        ours.append(_ask_ms(lines[0], message))
        floor.append(_ask_ms(lines[1], message))
    short = "; 100,000 instead of 1,000,000 rows, because --quick" if plan.quick else ""
    return Result(
        name=f"runs.{name}",
        what=f"get_runs ({name}), first page of {found} runs over the socket, "
        f"{number:,} run rows{short}",
        ours=figure("get_runs", "ms", ours),
        floor=figure(f"the same call with {_FEW} rows", "ms", floor),
        limits=(Limit("p50", "<=", 10),),
    )


def _ask_ms(line: Line, message: bytes) -> float:
    began = time.perf_counter()
    line.ask(message)
    return (time.perf_counter() - began) * 1000


def _seeded(room: Path, tasks: Path, number: int) -> AbstractContextManager[House]:
    room.mkdir()
    data = room / "data"
    data.mkdir(mode=0o700)
    seed_runs(data, number)
    return serving(room, tasks, TASKS, data=data, config=KEPT)


ROW = Row("runs", "get_runs with 1,000,000 run rows", measure)

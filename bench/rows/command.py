"""The whole of ``dicode list``, from the spawn of the command to its exit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Limit, Result, figure
from bench.folders import write_reports
from bench.house import serving
from bench.row import Plan, Row, Unmeasurable
from bench.spawn import F0, bare_ms, command_ms

_FEW, _MANY = 25, 1_000


def measure(plan: Plan) -> Iterator[Result]:
    yield _result(plan, _FEW, (Limit("p50", "<=", 120),))
    if not plan.quick:
        yield _result(plan, _MANY, ())


def _result(plan: Plan, number: int, limits: tuple[Limit, ...]) -> Result:
    room = plan.room / str(number)
    tasks = room / "tasks"
    write_reports(tasks, number)
    ours: list[float] = []
    floor: list[float] = []
    with serving(room, tasks, number) as house:
        argv = [str(_command()), "list", "--data-dir", str(house.data)]
        command_ms(argv, house.env, room)
        for _ in range(plan.times(40, 20)):
            ours.append(command_ms(argv, house.env, room))
            floor.append(bare_ms())
    return Result(
        name=f"list.{number}",
        what=f"`dicode list` from spawn to exit, {number:,} tasks",
        ours=figure("dicode list", "ms", ours),
        floor=figure(F0, "ms", floor),
        limits=limits,
    )


def _command() -> Path:
    """Find the installed command beside the interpreter."""
    path = Path(sys.executable).parent / "dicode"
    if not path.exists():
        raise Unmeasurable(f"{path} is not there; install the package")
    return path


ROW = Row("list", "`dicode list`, the whole command", measure)

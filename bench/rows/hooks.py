"""Webhooks under ``wrk``: how fast a message is taken (202), and how fast a sync one is answered.

Every message that is taken is a committed row. The task of the first measurement takes one run at a
time and sleeps in it, so that taking messages is measured and not running them. The floors are
uvicorn and Starlette answering a constant, and bare interpreters (F0, T0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from bench.constant import constant
from bench.figures import Figure, Result, figure, median
from bench.folders import HELLO_SCRIPT, write_task
from bench.house import serving
from bench.row import Plan, Row
from bench.spawn import AT_ONCE, F0, bare, bare_ms, rate_at_once
from bench.wrk import Load, load, require_wrk

_LATER = """\
name: Later
runtime: python
trigger: {webhook: /hooks/later, mode: async}
concurrency: {limit: 1, overlap: queue}
"""
_LATER_SCRIPT = "import time\ntime.sleep(4)\n"
_NOW = """\
name: Hello
runtime: python
trigger: {webhook: /hooks/now}
"""
_CLIENTS = 16

A = TypeVar("A")
B = TypeVar("B")


def measure(plan: Plan) -> Iterator[Result]:
    require_wrk()
    tasks = plan.room / "tasks"
    write_task(tasks, "later", _LATER, _LATER_SCRIPT)
    write_task(tasks, "now", _NOW, HELLO_SCRIPT)
    rounds, seconds = plan.times(7, 3), plan.times(3, 1)
    with serving(plan.room, tasks, 2) as house, constant() as port:
        url = f"http://127.0.0.1:{house.port}/hooks"
        floor_url = f"http://127.0.0.1:{port}/"

        def hit(address: str, connections: int) -> Callable[[], Load]:
            return lambda: load(plan.room, address, connections=connections, seconds=seconds)

        # The sync ones first: what is taken later leaves runs that wait.
        one, _ = _in_turn(rounds, hit(f"{url}/now", 1), bare_ms)
        many, t0 = _in_turn(
            rounds, hit(f"{url}/now", AT_ONCE), lambda: rate_at_once(plan.times(96, 32), bare)
        )
        f0 = [bare_ms() for _ in range(plan.times(100, 25))]
        taken, constants = _in_turn(rounds, hit(f"{url}/later", _CLIENTS), hit(floor_url, _CLIENTS))
    yield from _accepted(taken, constants)
    yield from _answered(one, many, figure(F0, "ms", f0), figure("T0 = eight F0 at once", "/s", t0))


def _in_turn(rounds: int, ours: Callable[[], A], floor: Callable[[], B]) -> tuple[list[A], list[B]]:
    ours()
    pairs = [(ours(), floor()) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _accepted(taken: list[Load], constants: list[Load]) -> Iterator[Result]:
    floor = "uvicorn and Starlette answering a constant"
    yield Result(
        name="hook.202",
        what=f"messages taken with 202 a second, {_CLIENTS} connections, each a committed row",
        ours=_rates("taken", taken),
        floor=_rates(floor, constants),
        notes=(f"the floor's p99 is {median([one.p99_ms for one in constants]):.1f} ms",),
    )
    yield Result(
        name="hook.202-ms",
        what="how long each of them took",
        ours=_times("202", taken),
        floor=_times(floor, constants),
    )


def _answered(one: list[Load], many: list[Load], f0: Figure, t0: Figure) -> Iterator[Result]:
    yield Result(
        name="hook.sync",
        what=f"hello (Python) by a sync webhook, answers a second, {AT_ONCE} connections",
        ours=_rates("answered", many),
        floor=t0,
        notes=(f"p99 of an answer: {median([load.p99_ms for load in many]):.0f} ms",),
    )
    yield Result(
        name="hook.sync-ms",
        what="how long an answer takes on one connection, message → result",
        ours=_times("sync", one),
        floor=f0,
    )


def _rates(label: str, loads: list[Load]) -> Figure:
    return figure(label, "/s", [one.rate for one in loads])


def _times(label: str, loads: list[Load]) -> Figure:
    """Sum up rounds: the median of their medians, and of their 99th percentiles."""
    number = sum(one.requests for one in loads)
    p50 = median([one.p50_ms for one in loads])
    return Figure(label, "ms", number, p50, median([one.p99_ms for one in loads]))


ROW = Row("hook", "webhooks under wrk: 202 and sync", measure)

"""A tenth of a long table of runs is deleted: how quickly, and what others notice of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from bench.figures import Limit, Result, figure
from bench.folders import write_reports
from bench.house import House, serving
from bench.row import Plan, Row, Unmeasurable
from bench.seed import KEPT, TASKS, seed_runs
from bench.wire import call_message, line_to

_PACE_S = 0.005
_CALM_S = 4.0
_AGE = "151h12m"
"""Nine tenths of the seven days that the runs are spread over."""


def measure(plan: Plan) -> Iterator[Result]:
    number = plan.times(1_000_000, 100_000)
    tasks = plan.room / "tasks"
    data = plan.room / "data"
    data.mkdir(mode=0o700)
    write_reports(tasks, TASKS)
    seed_runs(data, number, bodies=True)
    with serving(plan.room, tasks, TASKS, data=data, config=KEPT) as house:
        began = time.perf_counter()
        would_go = _prune(house, dry_run=True)
        preview_s = time.perf_counter() - began
        calm = threading.Event()
        threading.Timer(_CALM_S, calm.set).start()
        calm_ms = _status_until(house, calm)
        deleted, seconds, busy_ms = _pruned(house)
    # The age moves on between the two.
    if not 0.09 * number < would_go <= deleted < 0.11 * number:
        raise Unmeasurable(f"{deleted} runs were deleted, the preview said {would_go}")
    yield Result(
        name="prune",
        what=f"prune deletes {deleted:,} of {number:,} runs with input and value, runs a second",
        ours=figure("deleted", "/s", [deleted / seconds]),
        notes=(f"it took {seconds:.1f} s; the dry run before it {preview_s:.1f} s",),
        also={"preview_s": preview_s, "prune_s": seconds},
    )
    yield Result(
        name="prune.meanwhile",
        what="get_status on another connection meanwhile, one call every 5 ms",
        ours=figure("get_status while it prunes", "ms", busy_ms),
        floor=figure("the same calls at rest", "ms", calm_ms),
        limits=(Limit("p99", "<=", 50),),
    )


def _prune(house: House, *, dry_run: bool) -> int:
    runs = 0
    with line_to(house.socket) as line:
        while True:
            found = line.call("prune", dry_run=dry_run, older_than=_AGE)
            runs += found["runs"]
            if found["done"]:
                return runs
            if dry_run:
                raise Unmeasurable("the preview did not come to its end in time")


def _pruned(house: House) -> tuple[int, float, list[float]]:
    """Prune; gives how many went, the seconds, and the calls meanwhile in ms."""
    over = threading.Event()
    found: list[tuple[int, float]] = []

    def work() -> None:
        try:
            began = time.perf_counter()
            runs = _prune(house, dry_run=False)
            found.append((runs, time.perf_counter() - began))
        finally:
            over.set()

    worker = threading.Thread(target=work)
    worker.start()
    busy = _status_until(house, over)
    worker.join()
    if not found:
        raise Unmeasurable("pruning did not end well")
    return (*found[0], busy)


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


ROW = Row("prune", "100,000 of 1,000,000 runs deleted, and get_status meanwhile", measure)

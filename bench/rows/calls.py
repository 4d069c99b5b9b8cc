"""A tool call without work behind it, over the socket and over HTTP, against an echo tool.

The echo server has the same SDK below it and nothing of ours above. A second echo answers as many
bytes as ``get_status`` does, to tell what the size costs from what we cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from bench.echo import Echo, echoing
from bench.figures import Figure, Limit, Result, figure
from bench.folders import write_reports
from bench.house import House, serving
from bench.row import Plan, Row
from bench.wire import call_message, http_request, http_to, line_to, value_of

_TASKS = 20
_BLOCK = 10
"""Calls in a row before the other side has its turn."""

Ask = Callable[[bytes], bytes]


def measure(plan: Plan) -> Iterator[Result]:
    tasks = plan.room / "tasks"
    write_reports(tasks, _TASKS)
    rounds = plan.times(100, 20)
    with serving(plan.room, tasks, _TASKS) as house, echoing(plan.room) as echo:
        yield _socket(house, echo, rounds)
        yield _http(house, echo, rounds)


def _socket(house: House, echo: Echo, rounds: int) -> Result:
    with ExitStack() as stack:
        ours = stack.enter_context(line_to(house.socket)).ask
        floor = stack.enter_context(line_to(echo.socket)).ask
        status = call_message("get_status", {})
        size = len(ours(status))
        small = call_message("echo", {"text": "hello"})
        same = call_message("echo", {"text": "x" * (size // 2)})
        figures = _in_turn(rounds, ((ours, status), (floor, small), (floor, same)))
    return _result("socket", size, figures)


def _http(house: House, echo: Echo, rounds: int) -> Result:
    with ExitStack() as stack:
        ours = stack.enter_context(http_to(house.port)).ask
        floor = stack.enter_context(http_to(echo.port)).ask
        status = http_request(house.port, "get_status", {})
        size = len(ours(status))
        small = http_request(echo.port, "echo", {"text": "hello"})
        same = http_request(echo.port, "echo", {"text": "x" * (size // 2)})
        figures = _in_turn(rounds, ((ours, status), (floor, small), (floor, same)))
    return _result("http", size, figures)


def _in_turn(rounds: int, asks: tuple[tuple[Ask, bytes], ...]) -> list[list[float]]:
    """Time each call in blocks that take turns; gives the ms of each."""
    samples: list[list[float]] = [[] for _ in asks]
    for round_number in range(rounds + 2):
        for (ask, message), times in zip(asks, samples, strict=True):
            for _ in range(_BLOCK):
                began = time.perf_counter()
                answer = ask(message)
                took = (time.perf_counter() - began) * 1000
                if round_number > 1:
                    times.append(took)
            value_of(answer)
    return samples


def _result(transport: str, size: int, samples: list[list[float]]) -> Result:
    ours, small, same = samples
    alike: Figure = figure("echo of the same size", "ms", same)
    return Result(
        name=f"call.{transport}",
        what=f"tools/call get_status over {transport}, {_TASKS} tasks, an answer of {size:,} bytes",
        ours=figure("get_status", "ms", ours),
        floor=figure("echo tool on the same low-level SDK", "ms", small),
        limits=(Limit("ratio", "<=", 1.3),),
        notes=(f"an echo that answers as many bytes takes {alike.p50:.2f} ms",),
        also={"same_size_echo_ms": alike.p50},
    )


ROW = Row("call", "get_status over socket and HTTP against an echo tool", measure)

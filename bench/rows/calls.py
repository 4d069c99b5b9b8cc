"""A tool call without work behind it, over the socket and over HTTP, against an echo tool.

The echo server has the same SDK below it and nothing of ours above. A second echo answers as many
bytes as ``get_status`` does, to tell what the size costs from what we cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from bench.echo import Echo, echoing
from bench.figures import Figure, Limit, Result, figure
from bench.folders import write_reports
from bench.house import House, serving
from bench.row import Plan, Row
from bench.wire import call_message, http_request, http_to, line_to, value_of

_FEW, _MANY = 20, 1_000
_BLOCK = 10
"""Calls in a row before the other side has its turn."""

Ask = Callable[[bytes], bytes]


def measure(plan: Plan) -> Iterator[Result]:
    rounds = plan.times(100, 12)
    with (
        echoing(plan.room) as echo,
        _serving(plan.room, _FEW) as few,
        _serving(plan.room, _MANY) as many,
    ):
        yield _socket(few, echo, rounds, _FEW)
        yield _http(few, echo, rounds)
        yield _socket(many, echo, rounds, _MANY)


def _serving(room: Path, number: int) -> AbstractContextManager[House]:
    own = room / str(number)
    write_reports(own / "tasks", number)
    return serving(own, own / "tasks", number)


def _socket(house: House, echo: Echo, rounds: int, number: int) -> Result:
    with ExitStack() as stack:
        ours = stack.enter_context(line_to(house.socket)).ask
        floor = stack.enter_context(line_to(echo.socket)).ask
        status = call_message("get_status", {})
        size = len(ours(status))
        small = call_message("echo", {"text": "hello"})
        same = call_message("echo", {"text": "x" * (size // 2)})
        figures = _in_turn(rounds, ((ours, status), (floor, small), (floor, same)))
    return _result("socket" if number == _FEW else f"socket-{number}", number, size, figures)


def _http(house: House, echo: Echo, rounds: int) -> Result:
    with ExitStack() as stack:
        ours = stack.enter_context(http_to(house.port)).ask
        floor = stack.enter_context(http_to(echo.port)).ask
        status = http_request(house.port, "get_status", {})
        size = len(ours(status))
        small = http_request(echo.port, "echo", {"text": "hello"})
        same = http_request(echo.port, "echo", {"text": "x" * (size // 2)})
        figures = _in_turn(rounds, ((ours, status), (floor, small), (floor, same)))
    return _result("http", _FEW, size, figures)


def _in_turn(rounds: int, asks: tuple[tuple[Ask, bytes], ...]) -> list[list[float]]:
    """Time each call in blocks that take turns; gives the ms of each."""
    samples: list[list[float]] = [[] for _ in asks]
    for round_number in range(rounds + 1):
        for (ask, message), times in zip(asks, samples, strict=True):
            value_of(ask(message))
            for _ in range(_BLOCK if round_number else 0):
                began = time.perf_counter()
                ask(message)
                times.append((time.perf_counter() - began) * 1000)
    return samples


def _result(name: str, number: int, size: int, samples: list[list[float]]) -> Result:
    ours, small, same = samples
    alike: Figure = figure("echo of the same size", "ms", same)
    return Result(
        name=f"call.{name}",
        what=f"tools/call get_status, {number:,} tasks, an answer of {size:,} bytes",
        ours=figure("get_status", "ms", ours),
        floor=figure("echo tool on the same low-level SDK", "ms", small),
        limits=(Limit("ratio", "<=", 1.3),),
        notes=(f"an echo that answers as many bytes takes {alike.p50:.2f} ms",),
        also={"same_size_echo_ms": alike.p50},
    )


ROW = Row("call", "get_status over socket and HTTP against an echo tool", measure)

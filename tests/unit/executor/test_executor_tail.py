"""The newest lines of a stream, held in pieces."""

from __future__ import annotations

import random
import sys
import tracemalloc

import pytest

from dicode_mcp.executor.lines import LineSplitter
from dicode_mcp.executor.tail import Tail
from dicode_mcp.runs.redaction import NOTHING


def taken(tail: Tail, splitter: LineSplitter | None = None) -> list[bytes]:
    return [line for _, line in tail.take(splitter or LineSplitter(), NOTHING.stream())]


def test_what_fits_comes_out_as_it_went_in() -> None:
    tail, splitter = Tail(100, 10_000), LineSplitter()
    tail.lines(1, 5, [b"from", b"before"])
    tail.read(2, 6, memoryview(b"one\ntw"))
    tail.read(4, 7, memoryview(b"o\nthr"))
    assert bool(tail)
    found = [
        (piece.place, piece.ts_ms, line) for piece, line in tail.take(splitter, NOTHING.stream())
    ]
    assert found == [(1, 5, b"from"), (1, 5, b"before"), (2, 6, b"one"), (4, 7, b"two")]
    assert not tail
    tail.read(5, 8, memoryview(b"ee\n"))
    assert taken(tail, splitter) == [b"three"]
    assert tail.dropped == 0


def test_a_line_that_lost_its_start_is_not_shown_as_one() -> None:
    tail, splitter = Tail(100, 50), LineSplitter()
    tail.read(1, 0, memoryview(b"whole\nhalf of "))
    assert taken(tail, splitter) == [b"whole"]
    tail.read(2, 0, memoryview(b"x" * 500 + b"\n" + b"good\nun"))
    assert taken(tail, splitter) == [b"good"]
    tail.read(3, 0, memoryview(b"finished\n"))
    assert taken(tail, splitter) == [b"unfinished"]


@pytest.mark.parametrize("seed", range(20))
def test_the_newest_lines_are_shown_and_every_other_byte_is_counted(seed: int) -> None:
    rng = random.Random(seed)
    lines = [str(n).encode() + b"." * rng.choice((0, 3, 40, 400)) for n in range(3_000)]
    data = b"".join(line + b"\n" for line in lines)
    tail, splitter = Tail(200, 20_000), LineSplitter()
    shown: list[bytes] = []
    at = place = 0
    while at < len(data):
        size, place = rng.choice((1, 7, 500, 70_000)), place + rng.choice((1, 2))
        tail.read(place, 0, memoryview(data[at : at + size]))
        at += size
        if rng.random() < 0.02:
            shown += taken(tail, splitter)
    last = taken(tail, splitter)
    assert last == lines[len(lines) - len(last) :]
    shown += last
    assert sorted(shown, key=lines.index) == shown
    # What the splitter let go of are the starts of lines whose ends were let go.
    assert tail.dropped + splitter.dropped + sum(len(line) + 1 for line in shown) == len(data)


def test_many_short_lines_are_limited_by_number() -> None:
    tail = Tail(10, 10_000)
    tail.read(1, 0, memoryview(b"y\n" * 5_000))
    assert 9 <= len(taken(tail)) <= 10


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="measures memory")
def test_a_stream_of_single_bytes_takes_no_more_memory_than_one_of_pages() -> None:
    tail = Tail(1_000, 16 * 1024)
    byte = memoryview(b"x")
    tracemalloc.start()
    for place in range(0, 40_000, 2):
        tail.read(place, 0, byte)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1024 * 1024

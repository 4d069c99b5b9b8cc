"""Which lines of a long log make room for newer ones."""

from __future__ import annotations

import pytest

from dicode_mcp.runs.log_room import LogLimits, LogRoom, Room
from dicode_mcp.runs.logs import Level, LogLine


def lines(first: int, last: int, size: int = 9) -> list[LogLine]:
    return [LogLine(n, n, Level.INFO, "x" * size) for n in range(first, last + 1)]


def test_a_log_within_its_limits_stays_whole_with_the_server_s_own_lines() -> None:
    room = LogRoom(LogLimits(max_bytes=100_000, max_lines=10_000))
    assert room.take(lines(1, 10_000)) is None
    assert room.take(lines(10_001, 10_003, 500)) is None


def test_the_first_thousand_lines_and_the_newest_stay() -> None:
    room = LogRoom(LogLimits(max_bytes=10**9, max_lines=10_000))
    assert room.take(lines(1, 11_000)) is None
    assert room.take(lines(11_001, 11_001)) == Room(after=1_000, before=2_251)
    assert room.take(lines(11_002, 12_200)) is None


@pytest.mark.parametrize("size", [9, 1_000, 60_000])
def test_what_stays_is_bounded_in_lines_and_bytes(size: int) -> None:
    limits = LogLimits(max_bytes=10 * 2**20, max_lines=20_000)
    room = LogRoom(limits)
    kept = dict[int, int]()
    for first in range(1, 60_001, 200):
        new = lines(first, first + 199, size)
        kept.update((line.seq, size + 1) for line in new)
        gone = room.take(new)
        if gone is not None:
            for seq in [seq for seq in kept if gone.after < seq < gone.before]:
                del kept[seq]
    assert len(kept) <= limits.max_lines * 1.1
    assert sum(kept.values()) <= limits.max_bytes * 1.1 + 250 * size
    assert {1, 60_000} <= set(kept)


def test_the_newest_part_is_smaller_where_the_limits_are_small() -> None:
    small = LogLimits(max_bytes=10_000, max_lines=100)
    assert (small.newest_lines, small.newest_bytes) == (25, 2_500)
    whole = LogLimits()
    assert (whole.newest_lines, whole.newest_bytes) == (1_000, 256 * 1024)
    least = LogLimits(1, 1)
    assert (least.newest_lines, least.newest_bytes) == (1, 1)

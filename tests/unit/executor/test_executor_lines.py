"""Cutting bytes into lines."""

from __future__ import annotations

import pytest

from dicode_mcp.executor.lines import LineSplitter, readable, split_marked
from dicode_mcp.runs.logs import MAX_LINE_BYTES, TRUNCATED


def lines_of(*pieces: bytes) -> list[str]:
    splitter = LineSplitter()
    found = [line for piece in pieces for line in splitter.feed(piece)]
    return [readable(line) for line in [*found, *splitter.close()]]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b\nc"], ["ab", "c"]),
        ([b"\n\n"], ["", ""]),
        ([b""], []),
        ([b"a\r\nb\r\n"], ["a", "b"]),
        ([b"a\r", b"\nb"], ["a", "b"]),
        ([b"10%\r20%\r", b"30%\ndone"], ["30%", "done"]),
        ([b"x\ny1\ry2\nz\n"], ["x", "y2", "z"]),
        ([b"only\r"], ["only"]),
        ([b"\xc3", b"\xa9\n"], ["é"]),
        ([b"bad \xff\n"], ["bad \ufffd"]),
    ],
)
def test_lines_come_out_whole_however_the_bytes_arrive(
    pieces: list[bytes], expected: list[str]
) -> None:
    assert lines_of(*pieces) == expected


def test_every_way_of_cutting_a_text_gives_the_same_lines() -> None:
    text = "one\r\ntwo ü\n\nprogress 1\rprogress 2\nlast".encode()
    whole = lines_of(text)
    for first in range(len(text)):
        for second in range(first, len(text)):
            assert lines_of(text[:first], text[first:second], text[second:]) == whole


def test_a_line_of_exactly_the_limit_is_kept_and_one_byte_more_is_cut() -> None:
    (kept,) = lines_of(b"x" * MAX_LINE_BYTES + b"\n")
    assert kept == "x" * MAX_LINE_BYTES
    (shortened,) = lines_of(b"x" * MAX_LINE_BYTES, b"x\n")
    assert shortened.endswith(TRUNCATED)
    assert len(shortened.encode()) == MAX_LINE_BYTES


def test_a_cut_falls_between_characters() -> None:
    for shift in range(4):
        (line,) = lines_of(b"." * shift + "𝄞".encode() * 20_000 + b"\n")
        assert "\ufffd" not in line
        assert len(line.encode()) <= MAX_LINE_BYTES


def test_a_stream_without_line_ends_is_held_in_one_line_of_memory() -> None:
    splitter = LineSplitter()
    for _ in range(100):
        assert splitter.feed(b"\0" * 65536) == []
    assert splitter.dropped == 99 * 65536
    (line,) = splitter.close()
    assert len(readable(line).encode()) <= MAX_LINE_BYTES


def test_an_endless_progress_bar_loses_nothing_of_its_last_state() -> None:
    assert lines_of(*[b"\r%d%%" % n for n in range(50_000)], b"\n") == ["49999%"]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"nul\0", "nul␀"),
        (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        (b"\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        (b"tab\tstays", "tab\tstays"),
        ("c1 \u009b".encode(), "c1 \ufffd"),
        (b"del\x7f", "del␡"),
        (b"a\x1eb", "a␞b"),
        (b'\x1e{"l":"info","m":"x"}', '\x1e{"l":"info","m":"x"}'),
    ],
)
def test_control_characters_are_made_visible_and_colours_stay(raw: bytes, shown: str) -> None:
    assert readable(raw) == shown


def test_a_line_of_the_sdk_is_found_behind_text_without_line_end() -> None:
    marked = b'\x1e{"l":"warn","m":"x"}'
    assert split_marked(b"text" + marked) == [b"text", marked]
    assert split_marked(marked + marked) == [marked, marked]
    assert split_marked(b"plain \x1e text") == [b"plain \x1e text"]

from __future__ import annotations

import io

from dicode_mcp.cli.render import (
    cells,
    clean,
    duration,
    facts,
    fit,
    open_terminal,
    relative,
    table,
)
from dicode_mcp.clock import iso
from dicode_mcp.testing.clock import FakeClock

CLOCK = FakeClock()


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_line_up_also_with_wide_letters() -> None:
    lines = table(["A", "B"], [["日本", "x"], ["abcdef", "y"]], None)
    assert lines == ["A       B", "日本    x", "abcdef  y"]


def test_the_flexible_column_gives_way_to_the_width() -> None:
    lines = table(["ID", "ABOUT"], [["abc", "a very long description of a task"]], 20)
    assert lines == ["ID   ABOUT", "abc  a very long de…"]
    assert all(cells(line) <= 20 for line in lines)


def test_without_a_terminal_nothing_is_cut() -> None:
    assert table(["A"], [["x" * 500]], None)[1] == "x" * 500


def test_a_cut_text_fits_and_is_marked() -> None:
    assert fit("日本語", 4) == "日…"
    assert fit("abc", 3) == "abc"


def test_times_are_told_from_now() -> None:
    now = CLOCK.now_ms()
    assert relative(iso(now - 180_000), CLOCK) == "3 min ago"
    assert relative(iso(now + 7_300_000), CLOCK) == "in 2 h"
    assert relative(iso(now - 300), CLOCK) == "now"
    assert relative(None, CLOCK) == "-"
    assert relative("gibberish", CLOCK) == "gibberish"


def test_spans_have_the_two_units_that_matter() -> None:
    spans = {
        12: "12 ms",
        1500: "1.5 s",
        61_000: "1 min 1 s",
        7_200_000: "2 h",
        90_000_000: "1 d 1 h",
    }
    assert {ms: duration(ms) for ms in spans} == spans


def test_control_characters_and_text_direction_marks_are_shown_not_obeyed() -> None:
    assert clean("a\tb\nc") == "a\tb\nc"
    assert clean("\x1b[1mbold\x1b[0m\x07\u202e") == "bold\\x07\\u202e"


def test_colours_only_on_a_terminal_that_wants_them() -> None:
    for out, env, colour in (
        (Tty(), {}, True),
        (Tty(), {"NO_COLOR": ""}, False),
        (Tty(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ):
        terminal = open_terminal(out, io.StringIO(), env, CLOCK)
        assert terminal.colour is colour
        assert ("\x1b[" in terminal.style("x", "red")) is colour


def test_the_width_is_the_terminals_or_none_for_a_pipe() -> None:
    assert open_terminal(Tty(), Tty(), {"COLUMNS": "123"}, CLOCK).width == 123
    assert open_terminal(Tty(), Tty(), {}, CLOCK).width == 80
    assert open_terminal(io.StringIO(), Tty(), {"COLUMNS": "123"}, CLOCK).width is None


def test_objects_are_written_as_indented_lines() -> None:
    assert facts({"a_b": {"c": 1}, "d": "x\ny", "e": []}) == ["a b:", "  c: 1", "d: x y", "e: []"]

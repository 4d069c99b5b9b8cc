"""Markup is safe by its making."""

from __future__ import annotations

import pytest

from dicode_mcp.web.markup import Html, join, readable, tag


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b & ", tag("b", "c")) == "<p>a &lt; b &amp; <b>c</b></p>"
    assert join(["x", None, ["<", Html("<br>")]]) == "x&lt;<br>"


def test_an_attribute_cannot_be_left() -> None:
    made = tag("a", "x", href='"><script>', class_="k", aria_label="it's", hidden=True, id=None)
    assert made == (
        '<a href="&quot;&gt;&lt;script&gt;" class="k" aria-label="it&#x27;s" hidden>x</a>'
    )
    assert tag("input", value=0, selected=False) == '<input value="0">'


@pytest.mark.parametrize(
    ("char", "written"),
    [
        ("\x00", "\\x00"),
        ("\r", "\\x0d"),
        ("\x85", "\\x85"),
        ("\u061c", "\\u061c"),
        ("\u200f", "\\u200f"),
        ("\u2028", "\\u2028"),
        ("\u202e", "\\u202e"),
        ("\u2066", "\\u2066"),
        ("\ud800", "\\ud800"),
        ("\ufeff", "\\ufeff"),
        ("\U000e0041", "\\ue0041"),
    ],
)
def test_what_cannot_be_seen_is_written_out(char: str, written: str) -> None:
    assert readable(f"a{char}b") == f"a{written}b"
    assert tag("p", f"a{char}b") == f'<p>a<span class="unseen">{written}</span>b</p>'
    assert tag("p", title=f"a{char}b") == f'<p title="a{written}b"></p>'


@pytest.mark.parametrize("text", ["tab\tline\nend", "naïve 日本語", "👩\u200d💻", "می\u200cروم"])
def test_what_scripts_and_emoji_need_stays(text: str) -> None:
    assert readable(text) == text
    assert tag("p", text) == f"<p>{text}</p>"


def test_terminal_colours_are_dropped() -> None:
    assert readable("\x1b[1;31mred\x1b[0m") == "red"
    assert tag("p", "\x1b[31mred\x1b[0m \x1b]0;title") == (
        '<p>red <span class="unseen">\\x1b</span>]0;title</p>'
    )

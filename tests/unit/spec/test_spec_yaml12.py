from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from dicode_mcp.spec.problems import Place, SpecError
from dicode_mcp.spec.yaml12 import load


def data(text: str) -> Any:
    document = load(text, "t.yaml")
    assert not document.problems
    return document.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("2222:22", "2222:22"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-12", -12),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        (".inf", ".inf"),
        (".", "."),
        ("-", [None]),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("<<", "<<"),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
    ],
)
def test_scalars_are_read_by_the_core_schema(text: str, value: object) -> None:
    found = data(f"k: {text}" if text != "-" else "k:\n- ")["k"]
    assert found == value
    assert type(found) is type(value)
    assert not isinstance(found, date)


def test_on_is_a_key() -> None:
    assert data("on: success") == {"on": "success"}


def test_nested_data_and_empty_collections() -> None:
    text = "a:\n- b: {c: [1, {d: []}]}\n- {}\n- - x\n  - y\n"
    assert data(text) == {"a": [{"b": {"c": [1, {"d": []}]}}, {}, ["x", "y"]]}


def test_every_entry_has_its_place() -> None:
    document = load("a: 1\nb:\n  c:\n    - x\n    - d: y\n", "t.yaml")
    assert document.places[("a",)] == Place("t.yaml", 1, 1, 1, 4)
    assert document.places[("b",)] == Place("t.yaml", 2, 1, 3, 3)
    assert document.places[("b", "c")][:3] == ("t.yaml", 3, 3)
    assert document.places[("b", "c", 0)][:3] == ("t.yaml", 4, 7)
    assert document.places[("b", "c", 1, "d")] == Place("t.yaml", 5, 7, 5, 10)


def test_the_written_form_of_numbers_is_kept() -> None:
    document = load("v: 1.10\nw: [0x10, 'a', true, null]\n", "t.yaml")
    assert document.texts == {("v",): "1.10", ("w", 0): "0x10", ("w", 2): "true"}


def test_the_first_of_two_equal_keys_stays_and_the_second_is_told() -> None:
    document = load("a: {x: 1}\nb: 2\na: {x: 3, y: [4]}\n", "t.yaml")
    assert document.data == {"a": {"x": 1}, "b": 2}
    assert [(p.line, p.path) for p in document.problems] == [(3, "a")]


def test_several_faults_of_the_text_are_told_together() -> None:
    document = load("a: &x 1\nb: *x\n1: c\nd: !foo e\n", "t.yaml")
    assert [p.line for p in document.problems] == [1, 2, 3, 4]


def test_a_byte_order_mark_is_skipped() -> None:
    assert data("\ufeffa: 1") == {"a": 1}


def test_a_bomb_of_aliases_builds_nothing() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    document = load("\n".join(lines), "t.yaml")
    assert document.problems
    assert len(json.dumps(document.data)) < 5_000


@pytest.mark.parametrize("sign", ["[", "{a: ", "- "])
def test_depth_is_refused_before_it_is_built(sign: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(sign * 20_000, "t.yaml")
    assert "deeper than 32" in caught.value.message


def test_32_levels_are_read() -> None:
    assert data("[" * 32 + "]" * 32)


def test_a_lone_surrogate_is_a_problem_and_no_crash() -> None:
    with pytest.raises(SpecError, match=r"U\+D800"):
        load("a: \ud800", "t.yaml")


def test_size_counts_bytes() -> None:
    load("a: " + "é" * 10, "t.yaml", max_bytes=30)
    with pytest.raises(SpecError, match="larger than"):
        load("a: " + "é" * 14, "t.yaml", max_bytes=30)

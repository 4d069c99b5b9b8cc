"""Wrong arguments explained: all of them, by path and rule, never by value."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.tools.validation import ArgumentCheck, clip, nearest

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 5},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "level": {"type": "string", "enum": ["debug", "info"]},
        "deep": {"type": "object"},
        "on": {"type": "boolean"},
        "any": {},
    },
    "required": ["id", "count"],
    "additionalProperties": False,
}
CHECK = ArgumentCheck("some_tool", SCHEMA)


def problems(arguments: dict[str, Any]) -> dict[str, str]:
    """Give what a call is told, by path."""
    with pytest.raises(DicodeError) as raised:
        CHECK(arguments)
    assert raised.value.code is Code.INVALID_ARGUMENT
    return {p["path"]: p["message"] for p in raised.value.data["problems"]}


def test_good_arguments_pass_and_whole_numbers_become_integers() -> None:
    found = CHECK({"id": "a", "count": 2.0, "any": None})
    assert found == {"id": "a", "count": 2, "any": None}
    assert isinstance(found["count"], int)


@pytest.mark.parametrize(
    ("arguments", "path", "message"),
    [
        ({"count": 1}, "id", "'id' is required"),
        ({"id": "", "count": 1}, "id", "'id' must not be empty"),
        ({"id": "123456", "count": 1}, "id", "'id' must have at most 5 characters"),
        ({"id": "a", "count": 0}, "count", "'count' must be at least 1"),
        ({"id": "a", "count": 10}, "count", "'count' must be at most 9"),
        ({"id": "a", "count": "1"}, "count", "'count' must be an integer, found a string"),
        ({"id": "a", "count": True}, "count", "'count' must be an integer, found a boolean"),
        ({"id": "a", "count": 1.5}, "count", "'count' must be an integer, found a number"),
        ({"id": "a", "count": []}, "count", "'count' must be an integer, found an array"),
        ({"id": 5, "count": 1}, "id", "'id' must be a string, found an integer"),
        (
            {"id": "a", "count": 1, "on": None},
            "on",
            "'on' must be a boolean, found null (leave it out instead)",
        ),
        (
            {"id": "a", "count": 1, "level": "inf"},
            "level",
            "'level' must be one of debug, info (did you mean 'info'?)",
        ),
        (
            {"id": "a", "count": 1, "level": "x"},
            "level",
            "'level' must be one of debug, info",
        ),
        (
            {"id": "a", "count": 1, "leve": "x"},
            "leve",
            "'leve' is not an argument (did you mean 'level'?)",
        ),
        ({"id": "a", "count": 1, "zzz": "x"}, "zzz", "'zzz' is not an argument"),
    ],
)
def test_each_rule_is_named(arguments: dict[str, Any], path: str, message: str) -> None:
    assert problems(arguments) == {path: message}


def test_missing_names_that_contain_each_other_are_told_apart() -> None:
    assert problems({}) == {"id": "'id' is required", "count": "'count' is required"}


def test_values_are_never_shown() -> None:
    secret = "hunter2-hunter2"
    with pytest.raises(DicodeError) as raised:
        CHECK({"id": secret, "count": secret, "level": secret, "deep": [secret], "on": secret})
    assert secret not in str(raised.value.as_dict())
    assert len(raised.value.data["problems"]) == 5


def test_very_many_problems_are_counted_and_strange_names_are_tamed() -> None:
    with pytest.raises(DicodeError) as raised:
        CHECK({"id": "a", "count": 1, **{f"x{i}\n": 1 for i in range(50)}, "y" * 5000: 1})
    assert "and 31 more" in raised.value.message
    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 3000


def test_a_tool_without_arguments_says_so() -> None:
    empty = ArgumentCheck(
        "get_status", {"type": "object", "properties": {}, "additionalProperties": False}
    )
    with pytest.raises(DicodeError, match="'verbose' is not an argument") as raised:
        empty({"verbose": True})
    assert "takes no arguments" in (raised.value.hint or "")


def test_near_names_are_found_and_long_ones_clipped() -> None:
    assert nearest("run_tasks", ["run_task", "get_task", "x"])[0] == "run_task"
    assert len(clip("a" * 1000)) == 64
    assert clip("a\x1b[31m") == "a?[31m"

"""Questions as values: which can be put, which answers fit, which question is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.question_forms import read_schema
from dicode_mcp.runs.question_values import fit_answer, from_texts
from dicode_mcp.runs.questions import Answered, Draft, Question, find, put, read_draft, told

FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "go": {"type": "boolean", "title": "Go?", "default": False},
        "n": {"type": "integer", "minimum": 1, "maximum": 5},
        "name": {"type": "string", "minLength": 2, "maxLength": 4},
        "colour": {"type": "string", "enum": ["red", "blue"], "enumNames": ["Red", "Blue"]},
        "size": {"type": "string", "oneOf": [{"const": "s", "title": "Small"}, {"const": "l"}]},
        "when": {"type": "string", "format": "date"},
        "mail": {"type": "string", "format": "email"},
        "rate": {"type": "number"},
    },
    "required": ["n"],
}


def test_a_form_of_every_kind_of_field_is_kept_as_it_is() -> None:
    schema, bare = read_schema({**FORM, "additionalProperties": False, "$schema": "x"})
    assert (schema, bare) == (FORM, False)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("boolean", {"type": "boolean"}),
        (["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        ({"type": "integer", "minimum": 3}, {"type": "integer", "minimum": 3}),
    ],
)
def test_a_question_for_one_value_has_short_forms(given: Any, field: dict[str, Any]) -> None:
    schema, bare = read_schema(given)
    assert bare
    assert schema == {"type": "object", "properties": {"answer": field}, "required": ["answer"]}


def one(field: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": field}}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (None, "its type is not object"),
        (5, "its type is not object"),
        ({"type": "array"}, "its type is not object"),
        ({"type": "object"}, "properties is missing"),
        ({"type": "object", "properties": {}}, "properties is missing"),
        ({"type": "object", "properties": [1]}, "properties is missing"),
        ({**one({"type": "string"}), "patternProperties": {}}, "'patternProperties'"),
        ({**one({"type": "string"}), "additionalProperties": True}, "only be false"),
        ({**one({"type": "string"}), "required": ["b"]}, "required does not list"),
        ({**one({"type": "string"}), "required": [["a"]]}, "required does not list"),
        ({**one({"type": "string"}), "required": "a"}, "required does not list"),
        (one({"type": "object"}), "no lists, no objects"),
        (one({"type": ["string"]}), "no lists, no objects"),
        (one("string"), "not an object with a type"),
        (one({"type": "string", "pattern": "x"}), "'pattern' does not go with string"),
        (one({"type": "boolean", "minimum": 1}), "'minimum' does not go with boolean"),
        (one({"type": "string", "format": "hostname"}), "format is one of"),
        (one({"type": "string", "format": ["date"]}), "format is one of"),
        (one({"type": "string", "enum": []}), "choices are"),
        (one({"type": "string", "enum": ["a", "a"]}), "choices are"),
        (one({"type": "string", "enum": ["a", 1]}), "choices are"),
        (one({"type": "string", "enum": ["a\x00"]}), "choices are"),
        (one({"type": "string", "enum": ["a"], "oneOf": []}), "not both"),
        (one({"type": "string", "oneOf": [{"title": "x"}]}), "choices are"),
        (one({"type": "string", "enum": ["a"], "enumNames": []}), "one name for each"),
        (one({"type": "string", "enumNames": ["a"]}), "enumNames needs enum"),
        (one({"type": "string", "minLength": 5, "maxLength": 2}), "greater than"),
        (one({"type": "string", "minLength": -1}), "whole numbers from 0"),
        (one({"type": "integer", "minimum": "1"}), "are numbers"),
        (one({"type": "integer", "default": "x"}), "default does not fit"),
        (one({"type": "string", "title": 5}), "title is not a text"),
        ({"type": "object", "properties": {"a b": {"type": "string"}}}, "1 to 64"),
        ({"type": "object", "properties": {"api_key": {"type": "string"}}}, "no place for secrets"),
        ({"type": "object", "properties": {"Password": {"type": "string"}}}, "permissions.env"),
        ({"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(31)}}, "30"),
        (one({"type": "string", "description": "x" * 20_000}), "16,384"),
        ("text", "type is one of"),
        ([], "choices are"),
    ],
)
def test_a_schema_that_is_no_flat_form_is_refused_and_named(schema: Any, named: str) -> None:
    with pytest.raises(DicodeError) as caught:
        read_schema(schema)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert named in caught.value.message
    assert '"type": "object"' in (caught.value.hint or "")


def test_an_answer_is_kept_with_its_defaults() -> None:
    given = {"n": 2.0, "name": "Ann", "size": "l", "when": "2026-02-28", "mail": "a@b.example"}
    kept = fit_answer(FORM, given)
    assert kept == {**given, "go": False, "n": 2}
    assert type(kept["n"]) is int


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "n is missing"),
        ({"n": True}, "n must be a number"),
        ({"n": "1"}, "n must be a number"),
        ({"n": 1.5}, "n must be a whole number"),
        ({"n": float("nan")}, "n must be a number"),
        ({"n": 0}, "n must be at least 1"),
        ({"n": 6}, "n must be at most 5"),
        ({"n": 1, "go": 1}, "go must be true or false"),
        ({"n": 1, "name": "hunter2"}, "name must have 2 to 4 characters"),
        ({"n": 1, "name": None}, "name must be a text"),
        ({"n": 1, "colour": "Red"}, "colour must be one of red, blue"),
        ({"n": 1, "size": "m"}, "size must be one of s, l"),
        ({"n": 1, "when": "2026-02-30"}, "when must be of the form date"),
        ({"n": 1, "mail": "nobody"}, "mail must be of the form email"),
        ({"n": 1, "other": 1}, "'other' is not asked for"),
        (5, "the answer is an object with go, n"),
        (None, "the answer is an object with go, n"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_without_its_value(given: Any, named: str) -> None:
    with pytest.raises(DicodeError) as caught:
        fit_answer(FORM, given)
    assert caught.value.code is Code.INVALID_PARAMS
    assert named in caught.value.message
    assert "hunter2" not in str(caught.value.as_dict())


def test_a_question_with_one_field_takes_its_value_alone() -> None:
    schema, _ = read_schema("boolean")
    assert fit_answer(schema, True) == fit_answer(schema, {"answer": True}) == {"answer": True}


def test_what_is_typed_is_read_by_the_types_of_the_fields() -> None:
    typed = {"go": "Yes", "n": " 3 ", "rate": "1e3", "name": "", "colour": "red", "other": "x"}
    assert from_texts(FORM, typed) == {
        "go": True,
        "n": 3,
        "rate": 1000.0,
        "colour": "red",
        "other": "x",
    }
    assert from_texts(FORM, {"n": "", "go": "maybe"}) == {"n": "", "go": "maybe"}


def test_the_message_loses_what_cannot_be_seen_and_what_is_too_long() -> None:
    draft = read_draft({"schema": "boolean", "message": " Pay\x1b[2J \u202e100\x00?\nNow?\n"})
    assert draft.message == "Pay[2J 100?\nNow?"
    assert len(read_draft({"schema": "boolean", "message": "x" * 9_000}).message) == 4_000


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"message": ""}, "message is missing"),
        ({"message": "\x00"}, "message is missing"),
        ({"message": 5}, "message is missing"),
        ({"key": ""}, "key"),
        ({"key": "a\x00"}, "key"),
        ({"key": "k" * 513}, "key"),
        ({"timeout": 0}, "out of range"),
        ({"timeout": "31d"}, "out of range"),
        ({"timeout": -1}, "negative"),
        ({"timeout": "soon"}, "duration"),
        ({"timeout": True}, "duration"),
    ],
)
def test_a_question_with_a_wrong_argument_names_it(more: dict[str, Any], named: str) -> None:
    with pytest.raises(DicodeError) as caught:
        read_draft({"schema": "boolean", "message": "Go?", **more})
    assert named in caught.value.message


def test_a_question_waits_a_day_unless_told_otherwise() -> None:
    assert read_draft({"schema": "boolean", "message": "Go?"}).timeout_ms == 86_400_000
    draft = read_draft({"schema": "boolean", "message": "Go?", "timeout": "1h30m"})
    assert put(draft, "r", 1, 1_000).deadline_ms == 1_000 + 5_400_000


def draft(message: str, key: str | None = None) -> Draft:
    return read_draft({"schema": "boolean", "message": message, "key": key})


def asked(*drafts: Draft) -> list[Question]:
    return [put(one, "r", n, 0) for n, one in enumerate(drafts, 1)]


def test_questions_without_a_key_are_found_by_their_order() -> None:
    before = asked(draft("A?"), draft("B?", "b"), draft("C?"))
    assert find(draft("A?"), 1, before) is before[0]
    assert find(draft("C?"), 2, before) is before[2]
    assert find(draft("D?"), 3, before) is None


def test_a_question_with_a_key_is_found_wherever_it_is_asked() -> None:
    before = asked(draft("A?"), draft("B?", "b"))
    assert find(draft("B?", "b"), 0, before) is before[1]
    assert find(draft("B?", "c"), 0, before) is None


@pytest.mark.parametrize(
    ("again", "what"),
    [
        (draft("Delete 2?"), "message"),
        (read_draft({"schema": "string", "message": "Delete 1?"}), "schema"),
    ],
)
def test_another_question_in_the_place_of_an_answered_one_is_refused(
    again: Draft, what: str
) -> None:
    with pytest.raises(DicodeError) as caught:
        find(again, 1, asked(draft("Delete 1?")))
    assert caught.value.code is Code.ASK_MISMATCH
    assert f"another {what}" in caught.value.message


def test_a_declined_question_is_an_error_with_a_code_of_its_own() -> None:
    assert told(draft("Go?"), Answered({"answer": True}, 1, "a", "mcp")) is True
    with pytest.raises(DicodeError) as caught:
        told(draft("Go?"), Answered(None, 1, "ann", "http"))
    assert caught.value.code is Code.DECLINED
    assert "ann via http" in caught.value.message

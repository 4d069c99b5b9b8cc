from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec.loader import parse_document
from dicode_mcp.spec.model import ParamSpec, TaskSpec
from dicode_mcp.spec.params import bind_params, fill_params, params_json_schema


def declared(yaml: str) -> tuple[ParamSpec, ...]:
    text = f"name: T\nruntime: python\ntrigger: {{manual: true}}\n{yaml}"
    return TaskSpec.read(parse_document(text).data).params


SPECS = declared(
    """
params:
  repo: {type: string, required: true, description: Which repository}
  limit: {type: number, default: "10"}
  dry: {type: boolean, default: false}
  at: {type: cron}
  level: {enum: [low, high], default: low}
"""
)

FORMS = {
    "map": "params:\n  repo: denoland/deno\n  limit: {type: number, default: '10'}\n",
    "list": "params:\n  - name: repo\n    default: denoland/deno\n"
    "  - {name: limit, type: number, default: 10}\n",
    "short list": "params:\n  - repo: denoland/deno\n  - limit: {type: number, default: 10.0}\n",
}


@pytest.mark.parametrize("yaml", FORMS.values(), ids=FORMS.keys())
def test_all_forms_declare_the_same(yaml: str) -> None:
    assert declared(yaml) == (
        ParamSpec(name="repo", default="denoland/deno"),
        ParamSpec(name="limit", type="number", default=10),
    )


def test_a_text_parameter_keeps_what_was_written() -> None:
    params = declared("params:\n  v: 1.10\n  on: yes\n  t: true\n  n: null\n  z: {default: 007}\n")
    assert {p.name: p.default for p in params} == {
        "v": "1.10",
        "on": "yes",
        "t": "true",
        "n": None,
        "z": "007",
    }


def test_defaults_fill_what_is_not_given() -> None:
    bound = bind_params(SPECS, {"repo": "a/b"}, strict=True)
    assert bound == {"repo": "a/b", "limit": 10, "dry": False, "level": "low"}


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("limit", "10", 10),
        ("limit", "-2.50", -2.5),
        ("limit", 3.0, 3),
        ("limit", "1e3", 1000),
        ("limit", " 7 ", 7),
        ("dry", "YES", True),
        ("dry", "off", False),
        ("dry", "0", False),
        ("dry", 1, True),
        ("repo", 5, "5"),
        ("repo", True, "true"),
        ("repo", "", ""),
        ("at", " @daily ", "@daily"),
        ("level", "high", "high"),
    ],
)
def test_a_given_value_is_read_by_its_type(name: str, given: object, value: object) -> None:
    bound = bind_params(SPECS, {"repo": "r", name: given}, strict=True)
    assert bound[name] == value
    assert type(bound[name]) is type(value)


def test_all_faults_are_told_at_once_and_no_value_is_shown() -> None:
    given: dict[str, Any] = {
        "limt": "hunter2",
        "limit": "hunter2",
        "dry": "hunter2",
        "at": "hunter2",
        "level": "hunter2",
    }
    with pytest.raises(DicodeError) as caught:
        bind_params(SPECS, given, strict=True)
    error = caught.value
    assert error.code is Code.INVALID_PARAMS
    assert {(p["param"], p["problem"]) for p in error.data["problems"]} == {
        ("limt", "unknown"),
        ("repo", "missing"),
        ("limit", "wrong_type"),
        ("dry", "wrong_type"),
        ("at", "wrong_type"),
        ("level", "not_in_enum"),
    }
    assert error.data["declared"] == ["repo", "limit", "dry", "at", "level"]
    assert "did you mean 'limit'?" in error.message
    assert "low, high" in error.message
    assert "hunter2" not in json.dumps(error.as_dict())


@pytest.mark.parametrize(
    "given", [[], {}, float("nan"), "1_0", "0x1", "", "9" * 500 + "e9", "1e999"]
)
def test_what_is_no_number_is_refused(given: object) -> None:
    with pytest.raises(DicodeError) as caught:
        bind_params(SPECS, {"repo": "r", "limit": given}, strict=True)
    assert caught.value.data["problems"][0]["problem"] == "wrong_type"


def test_null_counts_as_not_given() -> None:
    with pytest.raises(DicodeError, match="'repo' is required"):
        bind_params(SPECS, {"repo": None}, strict=True)


def test_undeclared_names_are_left_out_when_nobody_named_them() -> None:
    assert "other" not in bind_params(SPECS, {"repo": "r", "other": 1}, strict=False)


def test_an_object_input_fills_declared_names_only() -> None:
    assert fill_params(SPECS, {"repo": "r", "other": 1}) == {"repo": "r"}
    assert fill_params(SPECS, ["repo"]) == {}


def test_true_is_not_one_of_the_numbers() -> None:
    (spec,) = declared("params:\n  n: {type: number, enum: [1, 2]}\n")
    assert bind_params((spec,), {"n": "2.0"}, strict=True) == {"n": 2}
    with pytest.raises(DicodeError):
        bind_params((spec,), {"n": True}, strict=True)


def test_the_json_schema_fits_the_binding() -> None:
    schema = params_json_schema(SPECS)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["repo"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["limit"] == {"type": "number", "default": 10}
    assert schema["properties"]["level"]["enum"] == ["low", "high"]
    jsonschema.validate({"repo": "a", "limit": 5}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"limit": 5}, schema)

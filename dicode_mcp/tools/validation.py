"""Arguments of a tool call against its JSON Schema, explained so that the next call is right.

Every problem of a call is named at once, by path and rule. A rejected value is never repeated: it
may be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from dicode_mcp.errors import Code, DicodeError

_MAX_PROBLEMS = 20
_MAX_NAME = 64

_TYPE_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a string"),
    (dict, "an object"),
    ((list, tuple), "an array"),
    (type(None), "null"),
)
_WANTED = {
    "array": "an array",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}


class ArgumentCheck:
    """The compiled check of one tool's arguments."""

    def __init__(self, tool: str, schema: Mapping[str, Any]) -> None:
        Draft202012Validator.check_schema(dict(schema))
        self._tool = tool
        self._validator: Any = Draft202012Validator(dict(schema))
        self._properties = cast("Mapping[str, Mapping[str, Any]]", schema.get("properties", {}))
        self._required = tuple(cast("Iterable[str]", schema.get("required", ())))

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Give the arguments, whole numbers as int; raises INVALID_ARGUMENT naming all problems."""
        errors = sorted(self._validator.iter_errors(dict(arguments)), key=_position)
        problems = [problem for error in errors for problem in explain(error)]
        if problems:
            raise self._refused(problems)
        return {name: self._whole(name, value) for name, value in arguments.items()}

    def _whole(self, name: str, value: Any) -> Any:
        # JSON Schema takes 2.0 for an integer; code that slices or counts does not.
        if isinstance(value, float) and self._properties.get(name, {}).get("type") == "integer":
            return int(value)
        return value

    def _refused(self, problems: list[dict[str, str]]) -> DicodeError:
        shown = problems[:_MAX_PROBLEMS]
        text = "; ".join(p["message"] for p in shown)
        if len(problems) > len(shown):
            text += f"; and {len(problems) - len(shown)} more"
        return DicodeError(
            Code.INVALID_ARGUMENT,
            f"{self._tool}: {text}",
            hint=f"{self._allowed()}; correct the call and send it again",
            data={"problems": shown},
        )

    def _allowed(self) -> str:
        if not self._properties:
            return "the tool takes no arguments"
        required = {name: f"{name} (required)" for name in self._required}
        names = [required.get(name, name) for name in self._properties]
        return f"arguments: {', '.join(names)}"


def explain(error: ValidationError) -> list[dict[str, str]]:
    """Say what an error means: ``[{path, message}]``, never with the value."""
    path = _path(error)
    match error.validator:
        case "additionalProperties":
            return [_unknown(error, path, name) for name in _unknown_names(error)]
        case "required":
            return [_problem(_join(path, name), "is required") for name in _missing(error)]
        case rule:
            return [_problem(path, _rule(str(rule), error))]


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Give up to three known names that look like ``name``, best first."""
    return difflib.get_close_matches(name[:_MAX_NAME], list(known), n=3, cutoff=0.6)


def clip(name: str) -> str:
    """Give a caller's name as it may be shown: at most 64 characters, printable."""
    shown = name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"
    return "".join(char if char.isprintable() else "?" for char in shown)


def _rule(rule: str, error: ValidationError) -> str:
    say = _RULES.get(rule)
    return say(error) if say else f"breaks the rule '{rule}'"


def _type_rule(error: ValidationError) -> str:
    wanted = _WANTED.get(str(error.validator_value), str(error.validator_value))
    if error.instance is None:
        return f"must be {wanted}, found null (leave it out instead)"
    return f"must be {wanted}, found {_found(error.instance)}"


def _enum_rule(error: ValidationError) -> str:
    allowed = [str(value) for value in cast("list[Any]", error.validator_value)]
    close = nearest(error.instance, allowed)[:1] if isinstance(error.instance, str) else []
    guess = f" (did you mean '{close[0]}'?)" if close else ""
    return f"must be one of {', '.join(allowed)}{guess}"


def _min_length_rule(error: ValidationError) -> str:
    if error.validator_value == 1:
        return "must not be empty"
    return f"must have at least {error.validator_value} characters"


_RULES: dict[str, Callable[[ValidationError], str]] = {
    "type": _type_rule,
    "enum": _enum_rule,
    "minimum": lambda e: f"must be at least {e.validator_value}",
    "maximum": lambda e: f"must be at most {e.validator_value}",
    "minLength": _min_length_rule,
    "maxLength": lambda e: f"must have at most {e.validator_value} characters",
    "pattern": lambda e: f"must match the pattern {e.validator_value}",
    "minProperties": lambda e: f"needs at least {e.validator_value} of its arguments",
    "maxProperties": lambda e: f"takes at most {e.validator_value} of its arguments",
}


def _found(value: Any) -> str:
    return next((name for kind, name in _TYPE_NAMES if isinstance(value, kind)), "something else")


def _unknown(error: ValidationError, path: str, name: str) -> dict[str, str]:
    schema = cast("Mapping[str, Any]", error.schema)
    known = list(cast("Mapping[str, Any]", schema.get("properties", {})))
    close = nearest(name, known)[:1]
    guess = f" (did you mean '{close[0]}'?)" if close else ""
    return _problem(_join(path, name), f"is not an argument{guess}")


def _unknown_names(error: ValidationError) -> list[str]:
    schema = cast("Mapping[str, Any]", error.schema)
    known = cast("Mapping[str, Any]", schema.get("properties", {}))
    return [name for name in cast("Mapping[str, Any]", error.instance) if name not in known]


def _missing(error: ValidationError) -> list[str]:
    # jsonschema gives one error for each missing name, with the whole list as the rule's value.
    names = cast("list[str]", error.validator_value)
    instance = cast("Mapping[str, Any]", error.instance)
    return [name for name in names if name not in instance and f"'{name}'" in error.message[:80]]


def _problem(path: str, message: str) -> dict[str, str]:
    return {"path": path, "message": f"'{path}' {message}" if path else f"the call {message}"}


def _join(path: str, name: str) -> str:
    return f"{path}.{clip(name)}" if path else clip(name)


def _path(error: ValidationError) -> str:
    return ".".join(clip(str(part)) for part in error.absolute_path)


def _position(error: ValidationError) -> tuple[str, str]:
    return _path(error), str(error.validator)

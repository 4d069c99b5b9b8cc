"""Parameters of a run: given values bound to what a task declares, on every way to start one.

All faults are told together. A given value is never shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec.paramspec import ParamSpec, coerce_value
from dicode_mcp.spec.problems import nearest

_SHOWN_CHARS = 64
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class ParamProblem:
    """One fault: ``problem`` is ``unknown``, ``wrong_type``, ``not_in_enum`` or ``missing``.

    What is missing also has its declared ``type`` and the values allowed.
    """

    param: str
    problem: str
    message: str
    allowed: tuple[Any, ...] | None = None
    type: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON-able form."""
        out: dict[str, Any] = {
            "param": self.param,
            "problem": self.problem,
            "message": self.message,
        }
        if self.allowed is not None:
            out["allowed"] = list(self.allowed)
        if self.type is not None:
            out["type"] = self.type
        return out


def bind_params(
    specs: Sequence[ParamSpec], given: Mapping[str, Any], *, strict: bool
) -> dict[str, Any]:
    """Give the parameters of a run: given values read by their types, then defaults.

    A given null counts as not given. ``strict`` refuses undeclared names; otherwise they are left
    out. Raises ``DicodeError(INVALID_PARAMS)`` that names every fault, with
    ``data = {problems: [{param, problem, message, allowed?, type?}], declared: [name]}``.
    """
    problems = _unknown(specs, given) if strict else []
    bound: dict[str, Any] = {}
    for spec in specs:
        value = given.get(spec.name)
        if value is None:
            if spec.default is not None:
                bound[spec.name] = spec.default
            elif spec.required:
                problems.append(_missing(spec))
            continue
        problem, read = _read(spec, value)
        if problem:
            problems.append(problem)
        else:
            bound[spec.name] = read
    if problems:
        raise _refusal(specs, problems)
    return bound


def _missing(spec: ParamSpec) -> ParamProblem:
    message = f"'{spec.name}' is required"
    return ParamProblem(spec.name, "missing", message, spec.enum, spec.type)


def _unknown(specs: Sequence[ParamSpec], given: Mapping[str, Any]) -> list[ParamProblem]:
    names = [spec.name for spec in specs]
    problems: list[ParamProblem] = []
    for name in given:
        if name not in names:
            shown = str(name)[:_SHOWN_CHARS]
            match = nearest(shown, names)
            message = f"'{shown}' is not a parameter of this task"
            if match:
                message += f"; did you mean '{match}'?"
            problems.append(ParamProblem(shown, "unknown", message))
    return problems


def _read(spec: ParamSpec, value: Any) -> tuple[ParamProblem | None, Any]:
    try:
        read = coerce_value(spec.type, value)
    except ValueError as error:
        return ParamProblem(spec.name, "wrong_type", f"'{spec.name}' {error}"), None
    if spec.enum is not None and not _among(read, spec.enum):
        allowed = ", ".join(str(item) for item in spec.enum)
        message = f"'{spec.name}' is not one of the allowed values: {allowed}"
        return ParamProblem(spec.name, "not_in_enum", message, spec.enum), None
    return None, read


def _among(value: Any, allowed: Sequence[Any]) -> bool:
    return any(value == item and type(value) is type(item) for item in allowed) or (
        isinstance(value, (int, float)) and not isinstance(value, bool) and value in allowed
    )


def _refusal(specs: Sequence[ParamSpec], problems: Sequence[ParamProblem]) -> DicodeError:
    names = [spec.name for spec in specs]
    sentences = [problem.message for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        sentences.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
    declared = ", ".join(_signature(spec) for spec in specs)
    return DicodeError(
        Code.INVALID_PARAMS,
        "the parameters do not fit: " + "; ".join(sentences),
        hint=f"declared parameters: {declared}" if names else "this task takes no parameters",
        data={
            "problems": [problem.as_dict() for problem in problems[:_SHOWN_PROBLEMS]],
            "declared": names,
        },
    )


def _signature(spec: ParamSpec) -> str:
    needed = spec.required and spec.default is None
    return f"{spec.name} ({spec.type}{', required' if needed else ''})"


def fill_params(specs: Sequence[ParamSpec], mapping: object) -> dict[str, Any]:
    """Pick the declared names out of an object input (a webhook body, a query, a chain's value).

    Anything that is not a map fills nothing; what is not declared stays in the input.
    """
    if not isinstance(mapping, Mapping):
        return {}
    return {spec.name: mapping[spec.name] for spec in specs if spec.name in mapping}


def params_json_schema(specs: Sequence[ParamSpec]) -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a task's parameters as one object."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {spec.name: _property(spec) for spec in specs},
        "additionalProperties": False,
    }
    required = [spec.name for spec in specs if spec.required and spec.default is None]
    if required:
        schema["required"] = required
    return schema


def _property(spec: ParamSpec) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "string" if spec.type == "cron" else spec.type}
    notes = [spec.description] if spec.description else []
    if spec.type == "cron":
        notes.append("A cron expression such as '0 9 * * 1-5' or @daily.")
    if notes:
        out["description"] = " ".join(notes)
    if spec.default is not None:
        out["default"] = spec.default
    if spec.enum is not None:
        out["enum"] = list(spec.enum)
    return out

"""Declared parameters: every form a manifest may use, and how a given value is read.

Sentences about values never show the value: a parameter may hold a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, get_args

from pydantic import field_validator

from dicode_mcp.spec.base import Findings, Model, Raw, fail
from dicode_mcp.spec.fields import Flag, check_cron

ParamType = Literal["string", "number", "boolean", "cron"]

TYPES: tuple[ParamType, ...] = get_args(ParamType)
_MEANT: Mapping[str, ParamType] = {
    "int": "number",
    "integer": "number",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "num": "number",
    "bool": "boolean",
    "str": "string",
    "text": "string",
}
"""What other languages call our types."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_WHOLE = re.compile(r"[-+]?[0-9]{1,300}")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def _read_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError("must be text")


def _read_number(value: Any) -> int | float:
    if isinstance(value, str):
        value = _number_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a number")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("must be a finite number")
        if value.is_integer() and abs(value) < 2**53:
            return int(value)
    return value


def _number_text(text: str) -> int | float | None:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if len(text) < 400 and _NUMBER.fullmatch(text) else None


def _read_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("must be true or false (also 1, 0, yes, no, on, off)")


def _read_cron(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a cron expression")
    try:
        return check_cron(value.strip())
    except ValueError:
        raise ValueError("must be a cron expression such as '0 9 * * 1-5' or @daily") from None


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "string": _read_string,
    "number": _read_number,
    "boolean": _read_boolean,
    "cron": _read_cron,
}


def coerce_value(kind: ParamType, value: Any) -> Any:
    """Read ``value`` as a type. Raises ``ValueError`` with a sentence, never the value."""
    return _READERS[kind](value)


class ParamSpec(Model):
    """One declared parameter; ``type`` decides how given values are read."""

    name: str
    description: str = ""
    type: ParamType = "string"
    default: Any = None
    required: Flag = False
    enum: tuple[Any, ...] | None = None

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Check the default and the allowed values against the type."""
        kind = raw.get("type", "string")
        if kind not in _READERS:
            return
        allowed = _check_enum(kind, raw.get("enum"), findings)
        default = raw.get("default")
        if default is None:
            return
        try:
            value = coerce_value(kind, default)
        except ValueError as error:
            findings.add(("default",), f"{error}, as the type is {kind}", "mend default or type")
            return
        if allowed is not None and value not in allowed:
            findings.add(("default",), "is not one of enum", "add it to enum or change it")

    @classmethod
    def prepare(cls, raw: Raw) -> Raw:
        """Read the default and the allowed values by the type."""
        kind = raw.get("type", "string")
        if kind not in _READERS:
            return raw
        out = dict(raw)
        if raw.get("default") is not None:
            out["default"] = _coerced(kind, raw["default"])
        if isinstance(raw.get("enum"), (list, tuple)):
            out["enum"] = tuple(_coerced(kind, item) for item in raw["enum"])
        return out

    @field_validator("type", mode="before")
    @classmethod
    def _type(cls, name: Any) -> Any:
        meant = _MEANT.get(name.strip().lower()) if isinstance(name, str) else None
        if meant is not None:
            fail("is not a type of parameter", f"allowed: {', '.join(TYPES)}; write '{meant}'")
        return name

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        _check_name(name)
        return name


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        fail(
            "is not a parameter name",
            "letters, digits, '_', '-' and '.', beginning with a letter, at most 64",
        )


def _coerced(kind: ParamType, value: Any) -> Any:
    try:
        return coerce_value(kind, value)
    except ValueError:
        return value


def _check_enum(kind: ParamType, enum: Any, findings: Findings) -> list[Any] | None:
    if not isinstance(enum, (list, tuple)):
        return None
    values: list[Any] = []
    for index, item in enumerate(cast("list[Any]", enum)):
        try:
            values.append(coerce_value(kind, item))
        except ValueError as error:
            findings.add(("enum", index), f"{error}, as the type is {kind}")
    if not enum:
        findings.add(("enum",), "is empty", "list the allowed values or remove enum")
    return values


def read_params(value: Any) -> Any:
    """Read ``params`` in any of its forms; raises with the place of each fault."""
    if isinstance(value, Mapping):
        entries = [((name,), name, fields) for name, fields in cast(Raw, value).items()]
    elif isinstance(value, (list, tuple)):
        entries = [_list_entry(i, item) for i, item in enumerate(cast("list[Any]", value))]
    else:
        fail("must be a map of 'name: default' or a list of '- name: …'")
    findings = Findings()
    params: dict[str, ParamSpec] = {}
    for path, name, fields in entries:
        param = findings.attempt(path, lambda name=name, fields=fields: _read_one(name, fields))
        if param is None:
            continue
        if param.name in params:
            findings.add(path, f"'{param.name}' is declared twice", "keep one of the two")
        params[param.name] = param
    findings.raise_any("params")
    return tuple(params.values())


def _list_entry(index: int, item: Any) -> tuple[tuple[str | int, ...], Any, Any]:
    """Read ``- name: x`` (with its fields) or ``- x: default``; both occur in the wild."""
    if isinstance(item, Mapping):
        raw = cast(Raw, item)
        if "name" in raw:
            return (index,), raw["name"], {k: v for k, v in raw.items() if k != "name"}
        if len(raw) == 1:
            ((name, fields),) = raw.items()
            return (index, name), name, fields
    return (index,), item if isinstance(item, ParamSpec) else None, None


def _read_one(name: Any, fields: Any) -> ParamSpec:
    if isinstance(name, ParamSpec):
        return name
    if isinstance(fields, ParamSpec):
        return fields
    if not isinstance(name, str):
        fail("must be a map with 'name'", "write '- name: repo' or 'repo: default'")
    _check_name(name)
    if isinstance(fields, (list, tuple)):
        fail("must be a default value or a map, found a list")
    if not isinstance(fields, Mapping):
        return ParamSpec.model_validate({"name": name, "default": fields})
    raw = cast(Raw, fields)
    if "name" in raw:
        fail("has 'name' inside its map", "the key above is the name; remove the inner one")
    return ParamSpec.read({**raw, "name": name})

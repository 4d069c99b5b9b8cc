"""The form of a question: the flat JSON Schema that MCP's elicitation allows.

Pure. A schema that is not of that form is refused when it is asked, with the fix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.question_values import (
    Field,
    clean_text,
    fields_of,
    is_number,
    is_whole,
    shown,
    value_fault,
)

ONE = "answer"
"""The name of the only field of a question for one value."""
TYPES = ("string", "number", "integer", "boolean")
FORMATS = ("email", "uri", "date", "date-time")
MAX_FIELDS = 30
MAX_CHOICES = 100
MAX_SCHEMA = 16 * 1024

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SECRET = re.compile(
    r"passw|passphrase|secret|credential|token$|api[_-]?key|private[_-]?key", re.IGNORECASE
)
_WORDS = ("title", "description")
_SHARED = frozenset({"type", *_WORDS, "default"})
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "string": _SHARED | {"minLength", "maxLength", "format", "enum", "enumNames", "oneOf"},
    "number": _SHARED | {"minimum", "maximum"},
    "integer": _SHARED | {"minimum", "maximum"},
    "boolean": _SHARED,
}
_OBJECT = frozenset({"$schema", "type", "properties", "required", "additionalProperties", *_WORDS})
_FORM = (
    'write {"type": "object", "properties": {NAME: {"type": "string" | "number" | "integer" |'
    ' "boolean", …}}, "required": […]}, or for one value its type, or a list of choices'
)


def read_schema(given: Any) -> tuple[dict[str, Any], bool]:
    """Give the schema as it is kept, and whether one value alone is asked for.

    Raises INVALID_ARGUMENT that names every fault.
    """
    schema, bare = _spelled_out(given)
    faults = _object_faults(schema)
    if not faults:
        schema = _cleaned(schema)
        if len(json.dumps(schema, ensure_ascii=False)) > MAX_SCHEMA:
            faults = [f"it is over {MAX_SCHEMA:,} characters"]
    if faults:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"ask: the schema is not a form that can be shown: {'; '.join(faults[:10])}",
            hint=_FORM,
            data={"problems": faults[:50]},
        )
    return schema, bare


def _spelled_out(given: Any) -> tuple[dict[str, Any], bool]:
    """Write the short forms out: a type's name, a list of choices, the schema of one value."""
    if isinstance(given, str):
        return _one({"type": given}), True
    if isinstance(given, list):
        return _one({"type": "string", "enum": given}), True
    if not isinstance(given, Mapping):
        return {"type": None}, False
    schema = dict(cast("Mapping[str, Any]", given))
    if schema.get("type") in TYPES:
        return _one(schema), True
    return schema, False


def _one(field: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {ONE: field}, "required": [ONE]}


def _object_faults(schema: Mapping[str, Any]) -> list[str]:
    if schema.get("type") != "object":
        return ["its type is not object"]
    faults = [f"'{shown(k)}' is not supported" for k in schema if k not in _OBJECT]
    if schema.get("additionalProperties", False) is not False:
        faults.append("additionalProperties can only be false")
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return [*faults, "properties is missing"]
    fields = cast("Mapping[str, Any]", properties)
    if len(fields) > MAX_FIELDS:
        faults.append(f"it has more than {MAX_FIELDS} properties")
    for name, field in fields.items():
        faults += [f"{shown(name)}: {fault}" for fault in _field_faults(name, field)]
    required: Any = schema.get("required", [])
    if not isinstance(required, list) or not all(
        isinstance(n, str) and n in fields for n in cast("list[Any]", required)
    ):
        faults.append("required does not list names of properties")
    return faults


def _field_faults(name: str, field: Any) -> list[str]:
    if not _NAME.fullmatch(name):
        return ["a name has 1 to 64 of A-Z a-z 0-9 _ . -"]
    if _SECRET.search(name):
        return ["answers are kept and shown, so they are no place for secrets: use permissions.env"]
    if not isinstance(field, Mapping):
        return ["is not an object with a type"]
    spec = cast("Mapping[str, Any]", field)
    kind = spec.get("type")
    if kind not in TYPES:
        return [f"type is one of {', '.join(TYPES)} (no lists, no objects within)"]
    faults = [f"'{shown(k)}' does not go with {kind}" for k in spec if k not in _KEYWORDS[kind]]
    faults += [f"{k} is not a text" for k in _WORDS if not isinstance(spec.get(k, ""), str)]
    faults += _choice_faults(spec) + _bound_faults(spec)
    if spec.get("format", "email") not in FORMATS:
        faults.append(f"format is one of {', '.join(FORMATS)}")
    if not faults and "default" in spec and value_fault(spec, spec["default"]):
        faults.append("default does not fit the field")
    return faults


def _choice_faults(spec: Field) -> list[str]:
    if "enum" in spec and "oneOf" in spec:
        return ["give enum or oneOf, not both"]
    values: Any = spec.get("enum")
    if "oneOf" in spec:
        values = _constants(spec["oneOf"])
    elif "enum" not in spec:
        return ["enumNames needs enum"] if "enumNames" in spec else []
    if not _plain_texts(values) or not 1 <= len(values) <= MAX_CHOICES:
        return [f"choices are 1 to {MAX_CHOICES} different texts of 1 to 200 characters"]
    names: Any = spec.get("enumNames", values)
    if not isinstance(names, list) or len(cast("list[Any]", names)) != len(values):
        return ["enumNames has not one name for each of enum"]
    if not all(isinstance(n, str) for n in cast("list[Any]", names)):
        return ["enumNames are not texts"]
    return []


def _constants(given: Any) -> Any:
    if not isinstance(given, list):
        return None
    items = cast("list[Any]", given)
    if not all(isinstance(item, Mapping) for item in items):
        return None
    choices = cast("list[Mapping[str, Any]]", items)
    if not all({"const"} <= set(choice) <= {"const", "title"} for choice in choices):
        return None
    return [choice["const"] for choice in choices]


def _plain_texts(values: Any) -> bool:
    if not isinstance(values, list):
        return False
    items = cast("list[Any]", values)
    texts = [i for i in items if isinstance(i, str) and 1 <= len(i) <= 200 and clean_text(i) == i]
    return len(texts) == len(items) == len(set(texts))


def _bound_faults(spec: Field) -> list[str]:
    faults: list[str] = []
    for low, high, whole in (("minLength", "maxLength", True), ("minimum", "maximum", False)):
        bounds = [spec[name] for name in (low, high) if name in spec]
        if not all(is_number(b) and (not whole or (is_whole(b) and b >= 0)) for b in bounds):
            faults.append(f"{low} and {high} are {'whole numbers from 0' if whole else 'numbers'}")
        elif len(bounds) == 2 and bounds[0] > bounds[1]:
            faults.append(f"{low} is greater than {high}")
    return faults


def _cleaned(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give the schema as it is kept and shown: known keywords, texts without what is not seen."""
    fields = {name: _cleaned_field(field) for name, field in fields_of(schema).items()}
    required = [name for name in fields if name in schema.get("required", [])]
    return {
        "type": "object",
        **{k: clean_text(schema[k]) for k in _WORDS if isinstance(schema.get(k), str)},
        "properties": fields,
        **({"required": required} if required else {}),
    }


def _cleaned_field(field: Field) -> dict[str, Any]:
    out = dict(field)
    for word in _WORDS:
        if word in out:
            out[word] = clean_text(out[word])
    if "enumNames" in out:
        out["enumNames"] = [clean_text(name) for name in out["enumNames"]]
    if "oneOf" in out:
        out["oneOf"] = [
            {**choice, **({"title": clean_text(str(choice["title"]))} if "title" in choice else {})}
            for choice in out["oneOf"]
        ]
    return out

"""What is answered to a question: read from what was typed, and checked against its fields.

Pure. Every surface checks with this, and a rejected value is never repeated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, cast
from urllib.parse import urlsplit

from dicode_mcp.errors import Code, DicodeError

MAX_TEXT = 10_000
"""Characters of an answer's text, unless ``maxLength`` says less."""

# Controls but tab and line feed, soft hyphen, bidi marks and isolates, zero-width space, line and
# paragraph separators, invisible operators, surrogates, BOM, tags. Joiners stay for emoji.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)

Field = Mapping[str, Any]


def clean_text(text: str) -> str:
    """Take out what a reader cannot see; line ends and tabs stay."""
    return _UNSEEN.sub("", text)


def fields_of(schema: Mapping[str, Any]) -> Mapping[str, Field]:
    """Give the fields of a question by name, in order."""
    return cast("Mapping[str, Field]", schema["properties"])


def choices_of(field: Field) -> list[tuple[str, str]] | None:
    """Give the values a field may have with what each is called; None when it is free."""
    if "oneOf" in field:
        return [(c["const"], c.get("title") or c["const"]) for c in field["oneOf"]]
    if "enum" not in field:
        return None
    names = field.get("enumNames") or field["enum"]
    return list(zip(field["enum"], names, strict=True))


def fit_answer(schema: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """Give an answer as it is kept, with defaults; raises INVALID_PARAMS that names every fault.

    A question with one field also takes its bare value.
    """
    fields = fields_of(schema)
    if not isinstance(given, Mapping):
        if len(fields) != 1:
            names = ", ".join(fields)
            raise _unfit([f"the answer is an object with {names}"], schema)
        given = {next(iter(fields)): given}
    values = dict(cast("Mapping[str, Any]", given))
    faults = [f"'{shown(name)}' is not asked for" for name in values if name not in fields]
    answer: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in values and "default" in field:
            answer[name] = field["default"]
        elif name in values:
            fault = value_fault(field, values[name])
            faults += [f"{name} {fault}"] if fault else []
            answer[name] = _kept(field, values[name])
        elif name in schema.get("required", []):
            faults.append(f"{name} is missing")
    if faults:
        raise _unfit(faults, schema)
    return answer


def value_fault(field: Field, value: Any) -> str | None:
    """Say what is wrong with one value, without the value; None when it fits."""
    kind = field["type"]
    if kind == "boolean":
        return None if isinstance(value, bool) else "must be true or false"
    if kind != "string":
        return _number_fault(field, value)
    if not isinstance(value, str):
        return "must be a text"
    choices = choices_of(field)
    if choices is not None:
        allowed = [choice for choice, _ in choices]
        return None if value in allowed else f"must be one of {', '.join(allowed)}"
    low, high = field.get("minLength", 0), min(field.get("maxLength", MAX_TEXT), MAX_TEXT)
    if not low <= len(value) <= high:
        return f"must have {low} to {high} characters"
    form = field.get("format")
    return None if form is None or _has_format(value, form) else f"must be of the form {form}"


def _number_fault(field: Field, value: Any) -> str | None:
    if not is_number(value):
        return "must be a number"
    if field["type"] == "integer" and not is_whole(value):
        return "must be a whole number"
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and value < low:
        return f"must be at least {low}"
    return f"must be at most {high}" if high is not None and value > high else None


def from_texts(schema: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Read what was typed: each text as its field's type. What cannot be read stays a text.

    An empty text of a field that is not required is no answer to it.
    """
    fields, required = fields_of(schema), schema.get("required", [])
    answer: dict[str, Any] = {}
    for name, text in texts.items():
        kind = fields[name]["type"] if name in fields else "string"
        if text == "" and name not in required:
            continue
        answer[name] = _typed(kind, text)
    return answer


def _typed(kind: str, text: str) -> Any:
    word = text.strip().lower()
    if kind == "boolean" and word in _BOOLEANS:
        return _BOOLEANS[word]
    if kind in ("integer", "number"):
        try:
            return int(word) if re.fullmatch(r"[+-]?[0-9]{1,300}", word) else float(word)
        except ValueError:
            return text
    return text


_BOOLEANS = {"true": True, "yes": True, "y": True, "false": False, "no": False, "n": False}


def _kept(field: Field, value: Any) -> Any:
    if field["type"] == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Tell whether a number is whole, as 2.0 is."""
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _has_format(text: str, form: str) -> bool:
    try:
        if form == "date":
            date.fromisoformat(text)
        elif form == "date-time":
            datetime.fromisoformat(text)
        elif form == "uri":
            return bool(urlsplit(text).scheme) and " " not in text
        else:
            return bool(re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+|[^@\s]+@localhost", text))
    except ValueError:
        return False
    return True


def _unfit(faults: Sequence[str], schema: Mapping[str, Any]) -> DicodeError:
    return DicodeError(
        Code.INVALID_PARAMS,
        f"the answer does not fit the question: {'; '.join(faults[:10])}",
        hint="answer with an object after question.schema of get_run",
        data={"problems": list(faults[:50]), "schema": dict(schema)},
    )


def shown(name: Any) -> str:
    """Give a name as it may stand in a message."""
    return clean_text(str(name))[:64]

"""Types of single values: what a number, a duration, a path or a cron text may be."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Literal, cast
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)

from dicode_mcp.spec.base import checked, fail
from dicode_mcp.spec.ids import check_glob, check_segment, check_task_id
from dicode_mcp.spec.problems import nearest
from dicode_mcp.spec.quantities import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

CRON_ALIASES = (
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
)
CRON_FORM = (
    "five fields (minute hour day month weekday) such as '0 9 * * 1-5', or @hourly, @daily …"
)
_CRON_FIELD = re.compile(r"[0-9A-Za-z*,/-]+")
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Priority = Annotated[int, Strict(), Field(ge=-100, le=100)]

_DECIMAL = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_DURATION_PATTERN = rf"^\+?({_DECIMAL}|({_DECIMAL}(ns|us|µs|μs|ms|s|m|h|d))+)$"
_DURATION_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": _DURATION_PATTERN},
        {"type": "number", "minimum": 0},
    ]
}
_SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*([KMGT]i?B|kB|[KMGT]i|B)?$"},
        {"type": "integer", "minimum": 0},
    ]
}

Duration = Annotated[
    float,
    BeforeValidator(checked(parse_duration)),
    PlainSerializer(format_duration, return_type=str, when_used="json-unless-none"),
    WithJsonSchema(_DURATION_SCHEMA),
]
"""Seconds; a Go-style text in files."""

Size = Annotated[
    int,
    BeforeValidator(checked(parse_size)),
    PlainSerializer(format_size, return_type=str, when_used="json-unless-none"),
    WithJsonSchema(_SIZE_SCHEMA),
]
"""Bytes; a text such as ``256MiB`` in files."""


def _positive(value: float) -> float:
    if value <= 0:
        fail("must be more than zero")
    return value


PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
PositiveSize = Annotated[Size, AfterValidator(_positive)]


def _line(text: str) -> str:
    if not text.strip():
        fail("is empty")
    if "\n" in text or "\r" in text:
        fail("must be one line")
    return text


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        fail("must not be empty")
    return value


# a length limit of pydantic's would also count out the items that have faults of their own
SOME = (AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1}))
"""Metadata of a list that must not be empty: ``Annotated[tuple[X, ...], *SOME]``."""

Line = Annotated[str, Field(max_length=500), AfterValidator(_line)]
"""Text on one line that is not empty."""

_SEGMENT_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]*"

Segment = Annotated[
    str,
    AfterValidator(checked(check_segment)),
    WithJsonSchema({"type": "string", "pattern": f"^{_SEGMENT_PATTERN}$", "maxLength": 128}),
]
TaskRef = Annotated[
    str,
    AfterValidator(checked(check_task_id)),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{_SEGMENT_PATTERN}(/{_SEGMENT_PATTERN})*$",
            "maxLength": 128,
        }
    ),
]
"""A task id, or the name of a sibling in the same set."""
TaskGlob = Annotated[str, AfterValidator(checked(check_glob))]


@lru_cache(maxsize=4096)
def _cron_fault(text: str) -> str:
    """Say what is wrong with a cron text; empty when nothing is."""
    if text.startswith("@"):
        return "" if text in CRON_ALIASES else "is not one of " + ", ".join(CRON_ALIASES)
    fields = text.split()
    if len(fields) != 5:
        return f"has {len(fields)} fields, must have {CRON_FORM}"
    if not all(_CRON_FIELD.fullmatch(field) for field in fields):
        return f"uses a sign that is not of cron; write {CRON_FORM}"
    try:
        expanded = cast("list[list[int | str]]", croniter.expand(text)[0])
    except (ValueError, KeyError, IndexError):
        return f"has a field out of range; write {CRON_FORM}"
    return "" if _has_a_day(expanded) else "names a day that no month has"


def _has_a_day(expanded: list[list[int | str]]) -> bool:
    _, _, days, months, weekdays = expanded
    if days == ["*"] or weekdays != ["*"]:
        return True
    named = range(1, 13) if months == ["*"] else [int(m) for m in months]
    longest = max(_MONTH_DAYS[month - 1] for month in named)
    return any(int(day) <= longest for day in days)


def check_cron(text: str) -> str:
    """Give ``text`` when it is a cron expression; raises ``ValueError`` otherwise."""
    fault = _cron_fault(text)
    if fault:
        raise ValueError(fault)
    return text


Cron = Annotated[str, AfterValidator(checked(check_cron))]


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        match = nearest(name, available_timezones())
        fail(
            "is not an IANA time zone",
            "write a name such as Europe/Berlin or UTC"
            + (f"; did you mean '{match}'?" if match else ""),
        )
    return name


Timezone = Annotated[str, AfterValidator(_timezone)]

HOOK_PREFIX = "/hooks/"
_HOOK_SEGMENT = re.compile(r"[A-Za-z0-9._~@:+-]+")


def normal_hook_path(text: str) -> str:
    """Give a webhook path without doubled or trailing slashes; raises ``ValueError``."""
    if not text.startswith(HOOK_PREFIX):
        raise ValueError(f"must begin with '{HOOK_PREFIX}', such as '{HOOK_PREFIX}my-task'")
    parts = [part for part in text.split("/") if part]
    if len(parts) < 2:
        raise ValueError(f"needs a name after '{HOOK_PREFIX}'")
    if any(part in (".", "..") for part in parts):
        raise ValueError("must not hold '.' or '..'")
    if not all(_HOOK_SEGMENT.fullmatch(part) for part in parts):
        raise ValueError("may hold letters, digits and . _ ~ @ : + - between its slashes")
    if parts[1] == "git":
        raise ValueError("is taken: '/hooks/git/…' receives the pushes of git sources")
    return "/" + "/".join(parts)


HookPath = Annotated[
    str,
    AfterValidator(checked(normal_hook_path)),
    WithJsonSchema({"type": "string", "pattern": "^/hooks/"}),
]


def _output_schema(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    schema = cast(dict[str, Any], value)
    dialect = schema.get("$schema", Draft202012Validator.META_SCHEMA["$id"])
    if dialect != Draft202012Validator.META_SCHEMA["$id"]:
        fail("must be JSON Schema 2020-12", "remove '$schema'")
    outside = _outside_reference(schema)
    if outside:
        fail("refers outside itself", "every '$ref' must begin with '#'")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "its root"
        fail(f"is not a valid JSON Schema: the fault is at {where} (rule '{error.validator}')")
    return schema


def _outside_reference(node: Any) -> bool:
    if isinstance(node, dict):
        fields = cast(dict[str, Any], node)
        for key in ("$ref", "$dynamicRef"):
            target = fields.get(key)
            if isinstance(target, str) and not target.startswith("#"):
                return True
        return any(_outside_reference(value) for value in fields.values())
    return isinstance(node, list) and any(
        _outside_reference(item) for item in cast(list[Any], node)
    )


OutputSchema = Annotated[
    dict[str, Any],
    BeforeValidator(_output_schema),
    WithJsonSchema({"type": "object", "$comment": "JSON Schema 2020-12"}),
]

SysName = Literal[
    "hostname",
    "osRelease",
    "osUptime",
    "loadavg",
    "networkInterfaces",
    "systemMemoryInfo",
    "uid",
    "gid",
    "username",
    "cpus",
    "homedir",
    "statfs",
    "getPriority",
    "setPriority",
    "userInfo",
]

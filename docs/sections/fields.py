"""``task.yaml`` and ``dicode.yaml`` field by field, from their JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter

from dicode_mcp.config.schema import config_schema
from dicode_mcp.spec.fields import Duration, Size
from dicode_mcp.spec.quantities import format_duration, format_size
from dicode_mcp.spec.schema import task_schema
from sections.markdown import anchor, code, sentence, table
from sections.status import task_fields_not_in_force

Schema = dict[str, Any]

_QUANTITIES: Mapping[str, tuple[Schema, Callable[[Any], str]]] = {
    "duration": (TypeAdapter(Duration).json_schema(), format_duration),
    "size": (TypeAdapter(Size).json_schema(), format_size),
}
_KINDS = {"string": "text", "integer": "whole number", "boolean": "true or false"}
_SAID_DEFAULTS = {
    "timeout": "60s for scripts",
    "data_dir": "`~/.dicode`",
    "log_level": "`info`",
    "execution.max_concurrent_runs": "twice the cores",
    "secrets.providers": "`[local]`",
}
"""Defaults that the schema does not hold, or holds for this machine only."""


def task_fields() -> str:
    """Give the fields of ``task.yaml``."""
    return _Pages(
        task_schema(),
        task_fields_not_in_force(),
        {"version": "text", "container": "[map](#docker)"},
    ).text()


def config_fields() -> str:
    """Give the fields of ``dicode.yaml``."""
    return _Pages(config_schema(), {}, {"data_dir": "path"}).text()


@dataclass(frozen=True, slots=True)
class _Place:
    """A map in the file: where it stands, and its schema."""

    path: str
    schema: Schema


class _Pages:
    """Walks a schema from its root; each map becomes a part of its own."""

    def __init__(
        self, root: Schema, not_in_force: Mapping[str, str], kinds: Mapping[str, str]
    ) -> None:
        self._definitions: Mapping[str, Schema] = root.get("$defs", {})
        self._root = root
        self._not_in_force = not_in_force
        self._kinds = kinds
        self._waiting: list[_Place] = []

    def text(self) -> str:
        parts = [self._table(_Place("", self._root))]
        while self._waiting:
            place = self._waiting.pop(0)
            parts.append(f"### `{place.path}`")
            parts.append(self._table(place))
        return "\n\n".join(parts)

    def _table(self, place: _Place) -> str:
        required = set(place.schema.get("required", ()))
        found: list[_Place] = []
        rows: list[list[str]] = []
        for name, field in place.schema["properties"].items():
            path = f"{place.path}.{name}" if place.path else name
            rows.append(
                [
                    code(name),
                    self._kinds.get(path) or self._kind(field, path, found),
                    "required" if name in required else self._default(field, path),
                    self._meaning(field, path),
                ]
            )
        # Depth first: what belongs to a field follows it.
        self._waiting[:0] = found
        return table(["Key", "Value", "Default", "Meaning"], rows)

    def _meaning(self, field: Schema, path: str) -> str:
        text = sentence(str(field.get("description", "")))
        if path in self._not_in_force:
            text += " Not in force yet."
        return text

    def _default(self, field: Schema, path: str) -> str:
        if path in _SAID_DEFAULTS:
            return _SAID_DEFAULTS[path]
        value = field.get("default")
        if value is None or value in ([], {}, "") or isinstance(value, dict):
            return ""
        for schema, form in _QUANTITIES.values():
            if _without_null(field) == schema["anyOf"] and not isinstance(value, str):
                return code(form(value))
        return code(value if isinstance(value, str) else json.dumps(value))

    def _kind(self, field: Schema, path: str, found: list[_Place]) -> str:
        """Name what a field may hold; maps that are met are added to ``found``."""
        if "$ref" in field:
            return self._kind(self._resolved(field), path, found)
        if "const" in field:
            return code(str(field["const"]))
        if "enum" in field:
            return ", ".join(code(str(value)) for value in field["enum"])
        if "anyOf" in field:
            return self._any(_without_null(field), path, found)
        if isinstance(field.get("type"), list):
            kinds: list[str] = [kind for kind in field["type"] if kind != "null"]
            return " or ".join(_KINDS.get(kind, kind) for kind in kinds)
        kind = field.get("type")
        if kind == "array":
            return self._list(field, path, found)
        if kind == "object":
            return self._map(field, path, found)
        if kind is None:
            return "any value"
        return _KINDS.get(str(kind), str(kind))

    def _any(self, choices: list[Schema], path: str, found: list[_Place]) -> str:
        for name, (schema, _) in _QUANTITIES.items():
            if choices == schema["anyOf"]:
                return name
        kinds = [self._kind(choice, path, found) for choice in choices]
        return " or ".join(dict.fromkeys(kinds))

    def _list(self, field: Schema, path: str, found: list[_Place]) -> str:
        items = self._kind(field.get("items", {}), f"{path}[]", found)
        return f"list of: {items}"

    def _map(self, field: Schema, path: str, found: list[_Place]) -> str:
        if "properties" in field:
            if all(place.path != path for place in found):
                found.append(_Place(path, field))
            return f"[map](#{anchor(path)})"
        values: Any = field.get("additionalProperties")
        if isinstance(values, dict) and values and "minProperties" not in field:
            values = cast("Schema", values)
            return f"map of names to: {self._kind(values, f'{path}.NAME', found)}"
        return "map"

    def _resolved(self, field: Schema) -> Schema:
        return self._definitions[str(field["$ref"]).rpartition("/")[2]]


def _without_null(field: Schema) -> list[Schema]:
    return [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]

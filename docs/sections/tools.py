"""The MCP tools, from their definitions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dicode_mcp.tools import schemas
from dicode_mcp.tools.addresses import TOOLSET
from dicode_mcp.tools.guidance import PROMPTS
from dicode_mcp.tools.registry import TOOLSETS, ToolDef
from dicode_mcp.tools.resources import TEMPLATES
from dicode_mcp.tools.server import ALL_TOOLS, INSTRUCTIONS
from sections.markdown import code, sentence, table
from sections.meanings import MEANINGS

Schema = Mapping[str, Any]

_SHARED = (
    (schemas.CONDITIONS, "list of [conditions](#conditions)"),
    (schemas.PROBLEMS, "list of [problems](#problems)"),
    (schemas.LOG_LINES, "list of [log lines](#log-lines)"),
)
_BY_NAME = {
    "conditions": "list of [conditions](#conditions)",
    "problems": "list of [problems](#problems)",
}
"""What has one shape wherever it stands, also where the schema says so only of the first place."""
_KINDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "map"}


def overview() -> str:
    """Give all tools in one table."""
    rows = [
        [f"[`{tool.name}`](#{tool.name})", tool.title, code(tool.toolset), _effect(tool)]
        for tool in ALL_TOOLS
    ]
    return table(["Tool", "", "Toolset", "Effect"], rows)


def _effect(tool: ToolDef) -> str:
    if tool.annotations.read_only_hint:
        return "reads"
    return "may destroy" if tool.annotations.destructive_hint else "changes"


def toolsets() -> str:
    """Name the toolsets."""
    return ", ".join(code(name) for name in TOOLSETS) + "."


def tools() -> str:
    """Give each tool with arguments and result."""
    shown: dict[str, str] = {}
    return "\n\n".join(_tool(tool, shown) for tool in ALL_TOOLS)


def _tool(tool: ToolDef, shown: dict[str, str]) -> str:
    parts = [f"### {tool.name}", tool.description]
    hints = tool.annotations.model_dump(by_alias=True, exclude={"title"}, exclude_none=True)
    said = ", ".join(f"{code(name)} {json.dumps(value)}" for name, value in hints.items())
    parts.append(f"Toolset {code(tool.toolset)}, scope {code(tool.verb)}. Annotations: {said}.")
    properties: Schema = tool.input_schema["properties"]
    if properties:
        required = set(tool.input_schema.get("required", ()))
        rows = [_argument(name, field, name in required) for name, field in properties.items()]
        parts.append(table(["Argument", "Value", "Default", "Meaning"], rows))
    else:
        parts.append("No arguments.")
    if tool.output_schema is None:
        return "\n\n".join([*parts, "The shape of the result is not declared."])
    first_level = json.dumps(schemas.brief(dict(tool.output_schema)), sort_keys=True)
    same = shown.setdefault(first_level, tool.name)
    if same != tool.name:
        parts.append(f"The result is that of [`{same}`](#{same}).")
    else:
        parts.append(
            table(
                ["Result", "Value", "Meaning"], list(_results(tool.output_schema, "", _noun(tool)))
            )
        )
    return "\n\n".join(parts)


def _noun(tool: ToolDef) -> str:
    """Give what a tool's own meanings begin with; most share those of their toolset."""
    return tool.name if any(key.startswith(f"{tool.name}:") for key in MEANINGS) else tool.toolset


def _argument(name: str, field: Schema, required: bool) -> list[str]:
    default = code(json.dumps(field["default"])) if "default" in field else ""
    return [
        code(name),
        _kind(field) + _bounds(field),
        "required" if required else default,
        sentence(str(field.get("description", ""))),
    ]


def _bounds(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None or high is None:
        return ""
    return f" from {low}" if high >= 2**53 - 1 else f" from {low} to {high}"


def shapes() -> str:
    """Give the shapes that several results share."""
    parts: list[str] = []
    for heading, schema in (
        ("Conditions", schemas.CONDITIONS),
        ("Problems", schemas.PROBLEMS),
        ("Log lines", schemas.LOG_LINES),
    ):
        rows = list(_results(schema["items"], "", heading.lower()))
        parts += [f"### {heading}", table(["Key", "Value", "Meaning"], rows)]
    return "\n\n".join(parts)


def _results(schema: Schema, path: str, shape: str) -> Iterator[list[str]]:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        here = f"{path}{name}"
        optional = "" if name in required or path else ", may be absent"
        shared = next((text for known, text in _SHARED if field == known), None)
        if name in _BY_NAME and field.get("type") == "array":
            shared = _BY_NAME[name]
        yield [code(here), (shared or _kind(field)) + optional, _meaning(name, field, here, shape)]
        if shared:
            continue
        if "properties" in field:
            yield from _results(field, f"{here}.", shape)
        elif "properties" in field.get("items", {}):
            yield from _results(field["items"], f"{here}[].", shape)


def _meaning(name: str, field: Schema, path: str, shape: str) -> str:
    for key in (f"{shape}:{path}", f"{shape}:{name}", path, name):
        if key in MEANINGS:
            return sentence(MEANINGS[key])
    if "description" in field:
        text = str(field["description"])
        return sentence(text[:1].upper() + text[1:])
    raise ValueError(f"docs/sections/meanings.py: say what {path!r} of a result means")


def _kind(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(code(str(value)) for value in field["enum"])
    if field.get("type") == "array":
        return f"list of: {_kind(field['items'])}" if "items" in field else "list"
    if "type" not in field:
        return "any JSON"
    return _KINDS[str(field["type"])]


def resources() -> str:
    """Give the addresses that can be read."""
    rows = [[code(template), code(TOOLSET[kind]), about] for _, kind, template, about in TEMPLATES]
    rows.append([code("dicode://sources"), code("sources"), "Where tasks come from."])
    return table(["Address", "Toolset", "What it holds"], rows)


def prompts() -> str:
    """Give the prompts with their arguments."""
    rows = [
        [
            code(prompt.name),
            ", ".join(code(argument.name) for argument in prompt.arguments),
            code(prompt.toolset),
            prompt.description,
        ]
        for prompt in PROMPTS
    ]
    return table(["Prompt", "Arguments", "Toolset", "What for"], rows)


def instructions() -> str:
    """Quote what a client is told when it connects."""
    return "\n".join(f"> {line}".rstrip() for line in INSTRUCTIONS.splitlines())

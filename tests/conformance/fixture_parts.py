"""Small makers for the fixture server, and the bytes its contents carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mcp_types as t

from dicode_mcp.tools.registry import Content, Handler, ToolDef

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8"
    "z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
"""One red pixel."""
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
"""No samples at all."""

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(
    name: str,
    handler: Handler,
    *,
    schema: Mapping[str, Any] = NO_ARGUMENTS,
    jobs: Any = "optional",
) -> ToolDef:
    """Make a tool of the fixture."""
    return ToolDef(
        name=name,
        title=name,
        description=f"Conformance fixture: {name}.",
        input_schema=schema,
        output_schema=None,
        annotations=t.ToolAnnotations(read_only_hint=True),
        toolset="status",
        verb="read",
        handler=handler,
        jobs=jobs,
    )


def arguments(*required: str, **properties: Any) -> dict[str, Any]:
    """Make a schema of arguments."""
    return {**NO_ARGUMENTS, "properties": properties, "required": list(required)}


def said(text: str) -> Content:
    """Make a result of one text."""
    return Content((text_block(text),))


def text_block(text: str) -> t.TextContent:
    """Make a block of text."""
    return t.TextContent(type="text", text=text)


def image_block() -> t.ImageContent:
    """Make a block with a picture."""
    return t.ImageContent(type="image", data=PNG, mime_type="image/png")


def text_resource(uri: str, mime_type: str, text: str) -> t.EmbeddedResource:
    """Make a block with a resource in it."""
    contents = t.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return t.EmbeddedResource(type="resource", resource=contents)

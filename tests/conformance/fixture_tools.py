"""The fixture's tools: what they return, and what they tell and ask while they work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import mcp_types as t
from fixture_parts import (
    NO_ARGUMENTS,
    WAV,
    arguments,
    image_block,
    said,
    text_block,
    text_resource,
    tool,
)

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.tools.questions import form
from dicode_mcp.tools.registry import Call, Content, Handler, ToolDef

_PAUSE_S = 0.05
_TEXT = {"type": "string"}

_RICH_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": _TEXT, "city": _TEXT},
        }
    },
    "properties": {
        "name": _TEXT,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": _TEXT,
        "email": _TEXT,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

_DEFAULTS: dict[str, Any] = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}

_OPTIONS = ["option1", "option2", "option3"]


def _titled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in pairs]


_ENUMS: dict[str, Any] = {
    "untitledSingle": {"type": "string", "enum": _OPTIONS},
    "titledSingle": {
        "type": "string",
        "oneOf": _titled(("value1", "First"), ("value2", "Second"), ("value3", "Third")),
    },
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
    "titledMulti": {
        "type": "array",
        "items": {"anyOf": _titled(("value1", "First"), ("value2", "Second"), ("value3", "Third"))},
    },
}


def fixed(*blocks: t.ContentBlock) -> Handler:
    """Make a handler that always returns the same."""

    async def handler(call: Call, args: dict[str, Any]) -> Content:
        return Content(blocks)

    return handler


async def logging(call: Call, args: dict[str, Any]) -> Content:
    """Send three log messages."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await call.client.log("info", text)
        await asyncio.sleep(_PAUSE_S)
    return said("logged")


async def progress(call: Call, args: dict[str, Any]) -> Content:
    """Tell progress three times."""
    for done in (0, 50, 100):
        await call.report(done, 100, f"{done} of 100")
        await asyncio.sleep(_PAUSE_S)
    return said("done")


async def failing(call: Call, args: dict[str, Any]) -> Content:
    """Fail."""
    raise DicodeError(Code.CONFLICT, "This tool intentionally returns an error for testing")


async def sampling(call: Call, args: dict[str, Any]) -> Content:
    """Have the client's model answer a prompt."""
    replies = await call.client.ask({"answer": sample(args.get("prompt", "hello"))})
    return said(f"LLM response: {text_of(replies['answer'])}")


def eliciting(schema: dict[str, Any]) -> Handler:
    """Make a handler that asks the user one form."""

    async def handler(call: Call, args: dict[str, Any]) -> Content:
        message = str(args.get("message", "Please answer"))
        replies = await call.client.ask({"form": form(message, schema)})
        reply = replies["form"]
        assert isinstance(reply, t.ElicitResult)
        content = json.dumps(reply.content or {})
        return said(f"Elicitation completed: action={reply.action}, content={content}")

    return handler


async def streaming(call: Call, args: dict[str, Any]) -> Content:
    """Tell progress, then ask: all of it on one response."""
    await call.report(1, 2, "asking")
    replies = await call.client.ask({"ok": form("Go on?", object_of(ok={"type": "boolean"}))})
    return said(str(replies["ok"].model_dump_json()))


def changing(change: Callable[[], None]) -> Handler:
    """Make a handler that changes a list."""

    async def handler(call: Call, args: dict[str, Any]) -> Content:
        change()
        return said("changed")

    return handler


def object_of(**properties: Any) -> dict[str, Any]:
    """Make a form's schema in which everything is required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def sample(prompt: str, max_tokens: int = 100) -> t.CreateMessageRequest:
    """Make a question to the client's model."""
    message = t.SamplingMessage(role="user", content=text_block(prompt))
    params = t.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    return t.CreateMessageRequest(params=params)


def text_of(reply: Any) -> str:
    """Give the text of a model's answer."""
    content = getattr(reply, "content", None)
    return content.text if isinstance(content, t.TextContent) else ""


def plain_tools(
    tools_change: Callable[[], None], prompts_change: Callable[[], None]
) -> list[ToolDef]:
    """Give the tools that need no state."""
    mixed = text_resource(
        "test://mixed-content-resource", "application/json", '{"test":"data","value":123}'
    )
    embedded = text_resource(
        "test://embedded-resource", "text/plain", "This is an embedded resource content."
    )
    audio = t.AudioContent(type="audio", data=WAV, mime_type="audio/wav")
    simple = text_block("This is a simple text response for testing.")
    region = {"type": "string", "x-mcp-header": "Region"}
    user = {"username": _TEXT, "email": _TEXT}
    return [
        tool("test_simple_text", fixed(simple)),
        tool("test_image_content", fixed(image_block())),
        tool("test_audio_content", fixed(audio)),
        tool("test_embedded_resource", fixed(embedded)),
        tool(
            "test_multiple_content_types",
            fixed(text_block("Multiple content types test:"), image_block(), mixed),
        ),
        tool("test_tool_with_logging", logging),
        tool("test_logging_tool", logging),
        tool("test_error_handling", failing),
        tool("test_tool_with_progress", progress),
        tool("test_sampling", sampling, schema=arguments("prompt", prompt=_TEXT)),
        tool("test_missing_capability", sampling, schema=NO_ARGUMENTS),
        tool(
            "test_elicitation",
            eliciting(object_of(**user)),
            schema=arguments("message", message=_TEXT),
        ),
        tool(
            "test_elicitation_sep1034_defaults",
            eliciting({"type": "object", "properties": _DEFAULTS}),
        ),
        tool("test_elicitation_sep1330_enums", eliciting({"type": "object", "properties": _ENUMS})),
        tool("test_streaming_elicitation", streaming),
        tool("test_trigger_tool_change", changing(tools_change)),
        tool("test_trigger_prompt_change", changing(prompts_change)),
        tool("json_schema_2020_12_tool", fixed(simple), schema=_RICH_SCHEMA),
        tool("test_header_param", fixed(simple), schema=arguments("region", region=region)),
    ]

"""One way through a call: what is refused, what is answered, what never leaks."""

from __future__ import annotations

import json
from typing import Any, cast

import mcp_types as t
import pytest
from mcp import MCPError

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service import Services, local_principal
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.tools.addresses import Address, parse_address
from dicode_mcp.tools.registry import Answer, Call, ToolDef, ToolRegistry, encode


async def _no_report(done: float, total: float | None, message: str | None) -> None:
    """Tell nobody."""


CALL = Call(cast("Services", None), local_principal("mcp"), _no_report, FakeClock())


def tool(name: str, outcome: Any) -> ToolDef:
    """Make a tool that answers or raises."""

    async def handler(call: Call, args: dict[str, Any]) -> Answer:
        if isinstance(outcome, Exception):
            raise outcome
        return Answer(outcome)

    return ToolDef(
        name=name,
        title=name,
        description=name,
        input_schema={"type": "object", "properties": {}, "additionalProperties": False},
        output_schema={"type": "object"},
        annotations=t.ToolAnnotations(),
        toolset="status",
        verb="read",
        handler=handler,
    )


async def result_of(outcome: Any) -> t.CallToolResult:
    """Call a tool with this outcome."""
    result = await ToolRegistry([tool("probe", outcome)]).call("probe", {}, CALL)
    assert isinstance(result, t.CallToolResult)
    return result


async def test_one_of_our_errors_is_a_result_with_code_and_hint() -> None:
    error = DicodeError(Code.CONFLICT, "no", hint="do this", data={"a": 1})
    result = await result_of(error)
    assert result.is_error
    assert result.structured_content == {
        "error": {"code": "conflict", "message": "no", "hint": "do this", "data": {"a": 1}}
    }


async def test_a_bug_is_an_error_without_its_text() -> None:
    result = await result_of(RuntimeError("password=hunter2"))
    assert result.is_error
    assert result.structured_content["error"]["code"] == "internal"
    assert "hunter2" not in result.model_dump_json()


async def test_half_a_surrogate_pair_does_not_break_the_answer() -> None:
    result = await result_of({"value": "a\ud800b", "fine": "é😀"})
    wire = json.loads(result.model_dump_json(by_alias=True))
    assert wire["structuredContent"] == {"value": "a?b", "fine": "é😀"}
    assert json.loads(wire["content"][0]["text"]) == wire["structuredContent"]


def test_text_and_value_are_the_same_and_compact() -> None:
    value, text = encode({"a": [1, {"b": "ü"}]})
    assert text == '{"a":[1,{"b":"ü"}]}'
    assert json.loads(text) == value


async def test_an_unknown_tool_is_refused_without_echoing_control_characters() -> None:
    with pytest.raises(MCPError) as raised:
        await ToolRegistry([tool("probe", {})]).call("prob\x1b", {}, CALL)
    assert raised.value.code == t.INVALID_PARAMS
    assert "\x1b" not in raised.value.message
    assert "probe" in raised.value.message


def test_pages_follow_names_and_a_foreign_cursor_is_refused() -> None:
    registry = ToolRegistry([tool(name, {}) for name in "dbca"], page_size=3)
    first, cursor = registry.page(CALL.principal, None)
    second, end = registry.page(CALL.principal, cursor)
    assert [shown.name for shown in first + second] == ["a", "b", "c", "d"]
    assert end is None
    with pytest.raises(MCPError):
        registry.page(CALL.principal, "!")


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("dicode://sources", Address("sources")),
        ("dicode://tasks/a%2Fb", Address("task", "a/b")),
        ("dicode://tasks/a/b", Address("task", "a/b")),
        ("dicode://tasks/a%2Fb/files/lib/x%20y.py", Address("file", "a/b", "lib/x y.py")),
        ("dicode://tasks/a/b/files/task.py", Address("file", "a/b", "task.py")),
        ("dicode://tasks/a%2Fb/pending", Address("pending", "a/b")),
        ("dicode://tasks/a/b/pending", Address("pending", "a/b")),
        ("dicode://tasks/a%2Fpending", Address("task", "a/pending")),
        ("dicode://tasks/pending", Address("task", "pending")),
        ("dicode://tasks/a/files/x/pending", Address("file", "a", "x/pending")),
        ("dicode://tasks/a/files/", None),
        ("dicode://tasks//files/task.py", None),
        ("dicode://runs/r", Address("run", "r")),
        ("dicode://runs/r/logs", Address("logs", "r")),
        ("dicode://runs/r/other", None),
        ("dicode://runs/", None),
        ("dicode://runs//logs", None),
        ("dicode://tasks", None),
        ("dicode://sources/x", None),
        ("file:///etc/passwd", None),
        ("", None),
    ],
)
def test_addresses_are_read_strictly(uri: str, address: Address | None) -> None:
    assert parse_address(uri) == address
    if address is not None:
        assert parse_address(address.uri) == address

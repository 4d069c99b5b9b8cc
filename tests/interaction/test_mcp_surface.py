"""The surface itself: what the tools look like, and that it changes only on purpose."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mcp_types as t
import pytest
from mcp import Client, MCPError
from mcp.server import Server
from mcphouse import VERSION, House

from dicode_mcp.service.principal import Principal, local_principal
from dicode_mcp.tools.hub import Hub
from dicode_mcp.tools.registry import ADMIN_TOOLSET, TOOLSETS, ToolRegistry
from dicode_mcp.tools.server import ALL_TOOLS, INSTRUCTIONS, create_mcp_server, own_offer

SNAPSHOT = Path(__file__).parent / "data" / "tools.json"
BUDGET_PER_TOOL = 1_820
"""Bytes of the list, on average: what a model reads before it does anything."""
READ_TOOLS = {
    "get_logs",
    "get_run",
    "get_runs",
    "get_stats",
    "get_status",
    "get_task",
    "list_sources",
    "list_tasks",
    "search_tasks",
    "secrets_list",
    "suggest_permissions",
    "validate_task",
}


def shown() -> list[dict[str, Any]]:
    """Give tools/list as it goes over the wire."""
    tools, _ = ToolRegistry(ALL_TOOLS).page(local_principal("mcp"), None)
    return [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in tools]


def test_the_tools_are_those_of_the_snapshot() -> None:
    """After a wanted change: ``UPDATE_SNAPSHOT=1 pytest tests/interaction/test_mcp_surface.py``."""
    text = json.dumps(shown(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()


def test_the_tool_list_keeps_to_its_budget() -> None:
    tools = shown()
    size = len(json.dumps(tools, separators=(",", ":")).encode())
    assert size < BUDGET_PER_TOOL * len(tools)


def test_names_descriptions_and_annotations_follow_the_conventions() -> None:
    for tool in shown():
        assert tool["name"].islower()
        assert len(tool["name"]) <= 48
        assert 100 < len(tool["description"]) < 1024
        assert set(tool["annotations"]) == {
            "title",
            "readOnlyHint",
            "destructiveHint",
            "idempotentHint",
            "openWorldHint",
        }
        assert tool["title"] == tool["annotations"]["title"]
        assert tool["inputSchema"]["additionalProperties"] is False
        assert "anyOf" not in json.dumps(tool)
        assert "$ref" not in json.dumps(tool)
    assert len(INSTRUCTIONS.encode()) < 2048


def test_every_named_tool_in_the_texts_exists() -> None:
    names = {tool.name for tool in ALL_TOOLS}
    texts = [INSTRUCTIONS, *(tool.description for tool in ALL_TOOLS)]
    for text in texts:
        for word in text.replace(".", " ").replace(",", " ").replace(";", " ").split():
            if word.startswith(("get_", "list_", "run_t", "set_", "sync_", "validate_", "cancel_")):
                assert word.strip("():") in names, word


def test_read_only_hints_say_what_the_verbs_say() -> None:
    for tool in ALL_TOOLS:
        # Scripts are for those who write them: reading one wants more than reading states.
        reads = tool.verb == "read" or tool.name in ("read_task_file", "get_audit", "keys_list")
        assert tool.annotations.read_only_hint is reads
        assert tool.toolset in TOOLSETS


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_tool_list_comes_in_pages_that_join_to_the_whole(
    house: House, hub: Hub, mode: str
) -> None:
    server = create_mcp_server(
        house.services,
        hub,
        version=VERSION,
        offer=own_offer(house.services, ToolRegistry(ALL_TOOLS, page_size=5)),
        principal=local_principal("mcp"),
    )
    names: list[str] = []
    cursor: str | None = None
    async with Client(server, mode=mode) as client:
        while True:
            page = await client.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            assert len(page.tools) <= 5
            cursor = page.next_cursor
            if cursor is None:
                break
        with pytest.raises(MCPError, match="cursor"):
            await client.list_tools(cursor="%%%")
    offered = [tool for tool in ALL_TOOLS if tool.toolset != ADMIN_TOOLSET]
    assert names == sorted(tool.name for tool in offered)


async def _tools_of(house: House, hub: Hub, principal: Principal) -> set[str]:
    server = create_mcp_server(house.services, hub, version=VERSION, principal=principal)
    async with Client(server, mode="2026-07-28") as client:
        return {tool.name for tool in (await client.list_tools()).tools}


async def test_a_read_only_caller_sees_and_calls_only_what_changes_nothing(
    house: House, hub: Hub
) -> None:
    principal = local_principal("mcp").narrowed(read_only=True)
    assert await _tools_of(house, hub, principal) == READ_TOOLS
    server = create_mcp_server(house.services, hub, version=VERSION, principal=principal)
    async with Client(server) as client:
        result = await client.call_tool("run_task", {"id": "hello"})
    assert result.is_error
    assert result.structured_content["error"]["code"] == "forbidden"
    assert "read-only" in result.structured_content["error"]["message"]


async def test_a_caller_with_toolsets_sees_and_calls_only_these(house: House, hub: Hub) -> None:
    principal = local_principal("mcp").narrowed(toolsets=["status"])
    assert await _tools_of(house, hub, principal) == {"get_audit", "get_status"}
    server = create_mcp_server(house.services, hub, version=VERSION, principal=principal)
    async with Client(server) as client:
        result = await client.call_tool("list_tasks", {})
        resources = (await client.list_resources()).resources
        with pytest.raises(MCPError):
            await client.read_resource("dicode://tasks/hello")
    assert result.structured_content["error"]["code"] == "forbidden"
    assert "--toolsets" in result.structured_content["error"]["hint"]
    assert resources == []


async def test_a_caller_with_globs_sees_only_these_tasks(house: House, hub: Hub) -> None:
    principal = local_principal("mcp").narrowed(tasks="hel*")
    server = create_mcp_server(house.services, hub, version=VERSION, principal=principal)
    async with Client(server) as client:
        tasks = (await client.call_tool("list_tasks", {})).structured_content["tasks"]
        refused = await client.call_tool("run_task", {"id": "slow"})
    assert [task["id"] for task in tasks] == ["hello"]
    assert refused.structured_content["error"]["code"] == "task_not_found"


async def test_a_caller_whom_nothing_established_is_refused(house: House, hub: Hub) -> None:
    server = create_mcp_server(house.services, hub, version=VERSION)
    async with Client(server, mode="2026-07-28") as client:
        with pytest.raises(MCPError, match="not authenticated") as raised:
            await client.call_tool("get_status", {})
    assert raised.value.code == t.INVALID_REQUEST


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_both_eras_are_told_of_list_changes_and_subscriptions(
    server: Server[Any], mode: str
) -> None:
    async with Client(server, mode=mode) as client:
        capabilities = client.server_capabilities
    assert capabilities.tools is not None
    assert capabilities.tools.list_changed is True
    assert capabilities.resources is not None
    assert capabilities.resources.list_changed is True
    assert capabilities.resources.subscribe is True

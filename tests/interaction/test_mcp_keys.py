"""What MCP offers to holders of keys: their verbs' tools, and approving by the scope alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import mcp_types as t
import pytest
from mcp import Client, MCPError
from mcphouse import VERSION, House
from test_mcp_approvals import let_wait
from test_mcp_asking import answering

from dicode_mcp.events import LogAppended, RunChanged, TasksChanged
from dicode_mcp.service.principal import Principal, key_principal, local_principal
from dicode_mcp.service.scopes import read_scopes
from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.tools.addresses import Address
from dicode_mcp.tools.hub import Change, Hub, change_of
from dicode_mcp.tools.server import create_mcp_server

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")


def holder(*scopes: str) -> Principal:
    return key_principal("key:ci#abc", "mcp", read_scopes(scopes), "key:abc")


def client(house: House, hub: Hub, principal: Principal, **options: Any) -> Client:
    server = create_mcp_server(house.services, hub, version=VERSION, principal=principal)
    return Client(server, **options)


async def test_a_key_with_the_scope_approves_without_a_question(house: House, hub: Hub) -> None:
    digest = let_wait(house)
    async with client(house, hub, holder("approve:hel*")) as caller:
        result = await caller.call_tool("approve_task", {"id": "hello", "hash": digest})
    assert result.structured_content["approved"] is True
    (approval,) = (await house.store.approvals())["hello"]
    assert approval.actor == "key:ci#abc"


@pytest.mark.parametrize(
    "scopes", [["author", "run", "read", "secrets", "admin"], ["approve:other", "author"]]
)
async def test_no_other_scope_approves_whatever_its_client_answers(
    house: House, hub: Hub, scopes: list[str]
) -> None:
    digest = let_wait(house)
    asked: list[t.ElicitRequestParams] = []
    yes = t.ElicitResult(action="accept", content={"approve": True})
    async with client(
        house, hub, holder(*scopes), elicitation_callback=answering(yes, asked)
    ) as caller:
        result = await caller.call_tool("approve_task", {"id": "hello", "hash": digest})
    assert result.structured_content["error"]["code"] == "forbidden"
    assert asked == []
    assert not await house.store.approvals()


async def test_a_connection_that_only_reads_does_not_approve(house: House, hub: Hub) -> None:
    digest = let_wait(house)
    caller_is = replace(holder("approve"), read_only=True)
    async with client(house, hub, caller_is) as caller:
        result = await caller.call_tool("approve_task", {"id": "hello", "hash": digest})
    assert result.structured_content["error"]["code"] == "forbidden"


async def test_a_hint_names_no_tool_that_the_caller_may_not_use(house: House, hub: Hub) -> None:
    async with client(house, hub, holder("read")) as caller:
        with pytest.raises(MCPError) as caught:
            await caller.call_tool("keys_lis", {})
        assert "keys_list" not in str(caught.value)
    async with client(house, hub, local_principal("cli")) as caller:
        with pytest.raises(MCPError, match="keys_list"):
            await caller.call_tool("keys_lis", {})


async def test_whoever_writes_one_task_writes_no_other(house: House, hub: Hub) -> None:
    async with client(house, hub, holder("author:hello", "read")) as caller:
        for tool, more in (
            ("read_task_file", {"path": "task.py"}),
            ("write_task_file", {"path": "task.py", "content": "x = 1\n"}),
            ("commit_task", {"message": "m"}),
            ("set_task_enabled", {"enabled": False}),
        ):
            result = await caller.call_tool(tool, {"id": "slow", **more})
            assert result.structured_content["error"]["code"] == "forbidden", tool
        uri = Address("file", "slow", "task.py").uri
        with pytest.raises(MCPError, match="not found"):
            await caller.read_resource(uri)
        mine = await caller.call_tool("read_task_file", {"id": "hello", "path": "task.py"})
        assert "def main" in mine.structured_content["content"]
    assert "def main" in (house.folder / "slow" / "task.py").read_text()


async def test_a_key_is_for_tasks_and_not_for_folders_of_the_machine(
    house: House, hub: Hub
) -> None:
    folder = str(house.folder / "slow")
    async with client(house, hub, holder("author", "read")) as caller:
        result = await caller.call_tool("validate_task", {"path": folder})
        assert result.structured_content["error"]["code"] == "forbidden"
        text = await caller.call_tool("validate_task", {"text": "name: x\n"})
        assert text.structured_content["valid"] is False
    async with client(house, hub, local_principal("mcp")) as caller:
        result = await caller.call_tool("validate_task", {"path": folder})
        assert result.structured_content["valid"] is True


# ── Notifications ──


def test_a_change_of_tasks_is_news_to_those_who_see_one() -> None:
    change = change_of(TasksChanged(("infra/a", "web/b")))
    assert change.lists_for(holder("read:infra/*"))
    assert change.lists_for(local_principal("mcp"))
    assert not change.lists_for(holder("read:mail/*"))
    assert not change.lists_for(holder("secrets"))
    assert Change(resources=True).lists_for(holder("read:mail/*"))


async def test_a_key_is_not_told_of_runs_that_it_may_not_read(house: House, hub: Hub) -> None:
    """The one notification that comes is of what may be read; the others came before it."""
    ours = (await house.services.runs.start(local_principal("mcp"), "hello"))["run_id"]
    others = (await house.services.runs.start(local_principal("mcp"), "fails"))["run_id"]
    heard: list[str] = []

    async def on_message(message: Any) -> None:
        method = getattr(message, "method", "")
        heard.append(getattr(getattr(message, "params", None), "uri", method))

    uris = [
        f"dicode://runs/{others}",
        f"dicode://runs/{others}/logs",
        "dicode://tasks/fails",
        f"dicode://runs/{ours}",
    ]
    async with client(
        house, hub, holder("read:hello"), mode="legacy", message_handler=on_message
    ) as caller:
        for uri in uris:
            await caller.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]
        house.bus.publish(LogAppended(others, ()))
        house.bus.publish(RunChanged(others, "fails", "failure"))
        house.bus.publish(TasksChanged(("fails",)))
        await house.queue.wait(ours, 30)
        async with asyncio.timeout(DEADLINE_S):
            while f"dicode://runs/{ours}" not in heard:
                house.bus.publish(RunChanged(ours, "hello", "success"))
                await caller.list_tools()
    assert not any("fails" in word or others in word for word in heard)
    assert "notifications/resources/list_changed" not in heard

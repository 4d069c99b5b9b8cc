"""Prompts and completions, with the SDK's own client, over every transport in both eras."""

from __future__ import annotations

import json

import mcp_types as t
import pytest
from mcp import Client, MCPError
from mcphouse import VERSION, House, Opening

from dicode_mcp.service.principal import local_principal
from dicode_mcp.tools.guidance import PROMPTS
from dicode_mcp.tools.hub import Hub
from dicode_mcp.tools.server import ALL_TOOLS, create_mcp_server


def texts(result: t.GetPromptResult) -> list[str]:
    """Give the texts of a prompt's messages, those in documents too."""
    found: list[str] = []
    for message in result.messages:
        content = message.content
        if isinstance(content, t.EmbeddedResource):
            assert isinstance(content.resource, t.TextResourceContents)
            found.append(content.resource.text)
        else:
            assert isinstance(content, t.TextContent)
            found.append(content.text)
    return found


async def test_prompts_are_listed_and_filled_in(connect: Opening, house: House) -> None:
    async with connect() as client:
        listed = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        run = (await client.call_tool("run_task", {"id": "fails"})).structured_content
        write = await client.get_prompt("write-a-task", {"goal": "count stars {braces}"})
        debug = await client.get_prompt("debug-a-failed-run", {"run_id": run["run_id"]})
        review = await client.get_prompt("review-permissions", {"task_id": "hello"})
    assert set(listed) == {"write-a-task", "debug-a-failed-run", "review-permissions"}
    assert all(prompt.description and prompt.arguments for prompt in listed.values())
    assert "count stars {braces}" in texts(write)[0]
    assert str(house.folder) in texts(write)[0]
    assert run["run_id"] in texts(debug)[0]
    assert json.loads(texts(debug)[1])["error"]["line"] == 7
    assert json.loads(texts(debug)[2])["id"] == "fails"
    assert json.loads(texts(review)[1])["spec"]["name"] == "hello"


WRONG: list[tuple[str, dict[str, str], str]] = [
    ("write-a-tusk", {}, "nearest: write-a-task"),
    ("write-a-task", {}, "'goal' is required. Arguments: goal"),
    ("write-a-task", {"goal": "x", "gaol": "y"}, "'gaol' is not an argument"),
    ("debug-a-failed-run", {"run_id": "nope"}, "not found"),
    ("review-permissions", {"task_id": "helo"}, "hello"),
]


async def test_a_wrong_call_of_a_prompt_says_what_to_change(connect: Opening) -> None:
    async with connect() as client:
        for name, arguments, message in WRONG:
            with pytest.raises(MCPError, match=message) as raised:
                await client.get_prompt(name, arguments)
            assert raised.value.code == t.INVALID_PARAMS


async def test_ids_are_completed(connect: Opening) -> None:
    async with connect() as client:
        failed = (await client.call_tool("run_task", {"id": "fails"})).structured_content["run_id"]
        good = (await client.call_tool("run_task", {"id": "hello"})).structured_content["run_id"]

        async def complete(ref: t.PromptReference | t.ResourceTemplateReference, **typed: str):
            (argument,) = typed.items()
            found = await client.complete(ref, {"name": argument[0], "value": argument[1]})
            return found.completion.values

        review = t.PromptReference(type="ref/prompt", name="review-permissions")
        debug = t.PromptReference(type="ref/prompt", name="debug-a-failed-run")
        tasks = t.ResourceTemplateReference(type="ref/resource", uri="dicode://tasks/{id}")
        runs = t.ResourceTemplateReference(type="ref/resource", uri="dicode://runs/{id}")
        assert await complete(review, task_id="h") == ["hello", "chatty"]
        assert await complete(tasks, id="sl") == ["slow"]
        assert await complete(debug, run_id="") == [failed]
        assert set(await complete(runs, id=good[:2])) >= {good}
        assert await complete(review, nothing="x") == []
        with pytest.raises(MCPError, match="Unknown prompt"):
            await complete(t.PromptReference(type="ref/prompt", name="nope"), a="b")
        with pytest.raises(MCPError, match="Unknown resource template"):
            await complete(t.ResourceTemplateReference(type="ref/resource", uri="x://y"), a="b")


async def test_a_caller_sees_and_completes_only_what_it_may_use(house: House, hub: Hub) -> None:
    principal = local_principal("mcp").narrowed(read_only=True, toolsets=["runs"], tasks="hel*")
    server = create_mcp_server(house.services, hub, version=VERSION, principal=principal)
    async with Client(server) as client:
        names = {prompt.name for prompt in (await client.list_prompts()).prompts}
        uri = t.ResourceTemplateReference(type="ref/resource", uri="dicode://tasks/{id}")
        found = await client.complete(uri, {"name": "id", "value": "s"})
        with pytest.raises(MCPError, match="Unknown prompt"):
            await client.get_prompt("write-a-task", {"goal": "x"})
    assert names == {"debug-a-failed-run"}
    assert found.completion.values == []


async def test_a_task_that_is_gone_does_not_stop_the_look_at_its_run(
    connect: Opening, house: House
) -> None:
    async with connect() as client:
        run = (await client.call_tool("run_task", {"id": "fails"})).structured_content
        house.remove("fails")
        debug = await client.get_prompt("debug-a-failed-run", {"run_id": run["run_id"]})
    assert len(debug.messages) == 2


async def test_the_example_of_a_task_is_a_good_one(house: House, hub: Hub) -> None:
    server = create_mcp_server(
        house.services, hub, version=VERSION, principal=local_principal("mcp")
    )
    async with Client(server) as client:
        text = texts(await client.get_prompt("write-a-task", {"goal": "x"}))[0]
        manifest, _, rest = text[text.index("name: Weather") :].partition("Its task.py:")
        verdict = (await client.call_tool("validate_task", {"text": manifest})).structured_content
    assert verdict["valid"], verdict
    compile(rest[: rest.index("main may take")], "task.py", "exec")


def test_the_texts_name_only_tools_that_exist() -> None:
    names = {tool.name for tool in ALL_TOOLS}
    for prompt in PROMPTS:
        for word in prompt.description.split():
            if word.startswith(("get_", "list_", "run_t", "validate_")):
                assert word.strip(".,:;") in names

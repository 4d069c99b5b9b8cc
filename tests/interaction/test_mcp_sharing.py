"""The tools that install, update and remove, as a client meets them."""

from __future__ import annotations

from typing import Any

from mcp import Client
from mcphouse import Opening


async def error_of(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return result.structured_content["error"]


async def test_an_installation_that_cannot_be_says_what_to_do(connect: Opening) -> None:
    async with connect() as client:
        found = [
            await error_of(client, "install_task", task="ext::sh -c id"),
            await error_of(client, "install_task", task="https://me:s3cret@github.com/a/b"),
            await error_of(client, "install_task", task="github.com/a/b"),
            await error_of(client, "install_task", task="monitoring/nope"),
            await error_of(client, "install_task", task="https://github.com/a/b"),
            await error_of(client, "install_task", task="x", branch="a", tag="b"),
            await error_of(client, "install_task", task="x", branch="-x"),
            await error_of(client, "install_task", task="https://github.com/a/b", source="nope"),
            await error_of(client, "install_task", task="https://github.com/a/b", **{"as": "a b"}),
        ]
    assert [error["code"] for error in found] == [
        "forbidden",
        "forbidden",
        "invalid_argument",
        "not_found",
        "unreachable",
        "invalid_argument",
        "invalid_argument",
        "source_not_found",
        "invalid_argument",
    ]
    assert all(error.get("hint") for error in found if error["code"] != "unreachable")
    assert "s3cret" not in str(found)


async def test_what_is_not_installed_is_neither_updated_nor_removed(connect: Opening) -> None:
    async with connect() as client:
        found = [
            await error_of(client, "update_task", id="hello"),
            await error_of(client, "uninstall_task", id="hello"),
            await error_of(client, "update_task", id="nope"),
            await error_of(client, "uninstall_task", id="nope"),
            await error_of(client, "update_task", id="hello", commit="abc"),
        ]
    codes = [error["code"] for error in found]
    assert codes[:4] == ["not_supported", "not_supported", "task_not_found", "task_not_found"]
    assert codes[4] == "invalid_argument"
    assert "folder of source 'demo'" in found[0]["message"]

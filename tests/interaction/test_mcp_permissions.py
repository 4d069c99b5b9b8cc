"""What an agent is told of the permissions that runs used and were refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mcp_types as t
import pytest
from mcp import Client
from mcphouse import House, Opening

from dicode_mcp.runs.accesses import Access, SeenRun, mark_of
from dicode_mcp.service.principal import Principal, key_principal
from dicode_mcp.service.scopes import read_scopes
from dicode_mcp.tools.hub import Hub
from dicode_mcp.tools.server import create_mcp_server

WIDE = """\
name: hello
runtime: python
trigger: {manual: true}
permissions:
  net: [api.example.com, old.example.com]
  fs: [{path: /srv/data, permission: rw}]
"""


@pytest.fixture
def opened(open_by: Callable[[str, str], Opening], server: object) -> Opening:
    return open_by("memory", "legacy")


def value(result: t.CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def ran(
    house: House, task_id: str, *accesses: Access, times: int = 1, ok: bool = True
) -> None:
    """Note runs of a task, as the runner does."""
    entry = house.registry.get(task_id)
    assert entry is not None
    assert entry.task is not None
    under = mark_of(entry.task.spec.permissions)
    before = len((await house.accesses.of(task_id)).runs)
    for n in range(before, before + times):
        seen = SeenRun(f"r{n}", n, ok, True, frozenset(accesses), under)
        await house.accesses.note(task_id, seen)


USED = (Access("net", "api.example.com:443", True), Access("read", "/srv/data", True))


async def test_the_block_that_was_enough_is_suggested(opened: Opening, house: House) -> None:
    house.write("hello", WIDE)
    await ran(house, "hello", *USED, times=6)
    await ran(house, "hello", Access("net", "new.example.com:443", False), ok=False)
    async with opened() as client:
        found = value(await client.call_tool("suggest_permissions", {"id": "hello"}))
    assert found["permissions"] == (
        "permissions:\n"
        "  fs:\n"
        "  - path: /srv/data\n"
        "    permission: r\n"
        "  net:\n"
        "  - api.example.com\n"
        "  - new.example.com:443\n"
    )
    assert (found["runs"], found["judged"]) == (7, 6)
    assert "+  - new.example.com:443" in found["diff"]
    assert "-  - old.example.com" in found["diff"]
    assert [each["line"] for each in found["add"]] == ["permissions.net: new.example.com:443"]
    assert [each["line"] for each in found["wider"]] == [
        "permissions.fs: {path: /srv/data, permission: rw}",
        "permissions.net: old.example.com",
    ]
    assert "note" not in found


async def test_a_check_warns_of_what_runs_did_without_and_stays_valid(
    opened: Opening, house: House
) -> None:
    house.write("hello", WIDE)
    await ran(house, "hello", *USED, times=4)
    async with opened() as client:
        early = value(await client.call_tool("validate_task", {"id": "hello"}))
        assert (early["valid"], early["conditions"]) == (True, [])
        await ran(house, "hello", *USED)
        verdict = value(await client.call_tool("validate_task", {"id": "hello"}))
        assert verdict["valid"] is True
        (told,) = verdict["conditions"]
        assert (told["type"], told["status"]) == ("PermissionsUsed", "False")
        assert "permissions.net: old.example.com (remove it)" in told["message"]
        assert "permission: r}]" in told["message"]
        assert 'suggest_permissions with id "hello"' in told["message"]
        house.write("hello", WIDE.replace("old.", "other."))
        changed = value(await client.call_tool("validate_task", {"id": "hello"}))
        assert changed["conditions"] == []


async def test_without_runs_nothing_is_judged(opened: Opening, house: House) -> None:
    house.write("hello", WIDE)
    async with opened() as client:
        found = value(await client.call_tool("suggest_permissions", {"id": "hello"}))
    assert (found["runs"], found["diff"], found["wider"]) == (0, "", [])
    assert "run it" in found["note"]


async def test_only_the_machine_s_owner_is_told_whether_a_refused_file_is_there(
    opened: Opening, house: House, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "there").touch()
    house.write("hello")
    paths = (tmp_path / "there", tmp_path / "sub" / "none")
    await ran(house, "hello", *(Access("read", str(p), False) for p in paths), ok=False)
    async with opened() as client:
        found = value(await client.call_tool("suggest_permissions", {"id": "hello"}))
        assert sorted(each["exists"] for each in found["add"]) == [False, True]
    async with narrowed(house, hub) as client:
        found = value(await client.call_tool("suggest_permissions", {"id": "hello"}))
        assert len(found["add"]) == 2
        assert all("exists" not in each for each in found["add"])


async def test_a_task_that_one_may_not_see_is_not_told_of(house: House, hub: Hub) -> None:
    async with narrowed(house, hub) as client:
        result = await client.call_tool("suggest_permissions", {"id": "slow"})
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "task_not_found"


async def test_a_task_that_never_loaded_has_nothing_to_judge(opened: Opening, house: House) -> None:
    house.write("hurt", "name: [")
    async with opened() as client:
        result = await client.call_tool("suggest_permissions", {"id": "hurt"})
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "task_not_ready"


def narrowed(house: House, hub: Hub) -> Client:
    principal: Principal = key_principal("key:ci", "mcp", read_scopes(["read:hello"]))
    return Client(create_mcp_server(house.services, hub, version="9", principal=principal))

"""Secrets over the protocol: never a form, never shown, and a page where a client can open one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import mcp_types as t
import pytest
from mcphouse import House, Opening

from dicode_mcp.service.principal import local_principal

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

VALUE = "hunter2-hunter2"
OWNER = local_principal("http")


def typing(house: House, asked: list[Any], action: Any = "accept") -> Callable[..., Any]:
    """Make a user who opens the page and types."""

    async def answer(context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        asked.append(params)
        if action == "accept":
            assert isinstance(params, t.ElicitRequestURLParams)
            ticket = params.url.rpartition("/")[2]
            await house.secret_rooms.invitations.take(OWNER, ticket, VALUE)
        return t.ElicitResult(action=action)

    return answer


async def test_a_user_types_the_value_on_a_page_and_the_agent_never_sees_it(
    connect: Opening, house: House
) -> None:
    house.secret_rooms.url = "http://127.0.0.1:8080"
    asked: list[Any] = []
    async with connect(elicitation_callback=typing(house, asked)) as client:
        result = await client.call_tool("secrets_set", {"name": "API_KEY"})
    assert result.structured_content == {"name": "API_KEY", "created": True, "used_by": []}
    assert house.secret_rooms.vault.value_of("API_KEY") == VALUE
    (params,) = asked
    assert params.mode == "url"
    assert params.url.startswith("http://127.0.0.1:8080/secrets/set/")
    assert "API_KEY" in params.message
    assert VALUE not in result.model_dump_json()


async def test_a_user_who_does_not_open_the_page_leaves_the_command(
    connect: Opening, house: House
) -> None:
    house.secret_rooms.url = "http://127.0.0.1:8080"
    asked: list[Any] = []
    async with connect(elicitation_callback=typing(house, asked, "decline")) as client:
        result = await client.call_tool("secrets_set", {"name": "API_KEY"})
    assert result.is_error
    assert "dicode secrets set API_KEY" in result.structured_content["error"]["hint"]
    assert len(asked) == 1


async def test_without_pages_or_such_a_client_the_command_is_named_and_no_form_is_shown(
    connect: Opening, house: House
) -> None:
    asked: list[Any] = []
    async with connect(elicitation_callback=typing(house, asked)) as client:
        no_pages = await client.call_tool("secrets_set", {"name": "API_KEY"})
    house.secret_rooms.url = "http://127.0.0.1:8080"
    async with connect() as client:
        no_client = await client.call_tool("secrets_set", {"name": "API_KEY"})
    for result in (no_pages, no_client):
        assert result.is_error
        error = result.structured_content["error"]
        assert error["code"] == "invalid_argument"
        assert "dicode secrets set API_KEY" in error["hint"]
    assert asked == []


async def test_a_call_waits_for_the_typing_but_not_for_ever(
    connect: Opening, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicode_mcp.tools.secrets.WAIT_S", 0.05)
    house.secret_rooms.url = "http://127.0.0.1:8080"

    async def opens(context: Any, params: Any) -> t.ElicitResult:
        return t.ElicitResult(action="accept")

    async with connect(elicitation_callback=opens) as client:
        result = await client.call_tool("secrets_set", {"name": "API_KEY"})
    assert result.structured_content["error"]["code"] == "secret_missing"
    assert "ten minutes" in result.structured_content["error"]["hint"]


async def test_names_are_listed_and_no_value_comes_back(connect: Opening, house: House) -> None:
    async with connect() as client:
        made = await client.call_tool("secrets_set", {"name": "A", "value": VALUE})
        again = await client.call_tool("secrets_set", {"name": "A", "value": VALUE + "2"})
        listed = await client.call_tool("secrets_list", {})
        gone = await client.call_tool("secrets_delete", {"name": "A"})
        missing = await client.call_tool("secrets_delete", {"name": "A"})
        bad = await client.call_tool("secrets_set", {"name": "no name", "value": VALUE})
        wrong = await client.call_tool("secrets_set", {"name": "A", "value": VALUE, "x": 1})
    assert made.structured_content["created"] is True
    assert again.structured_content["created"] is False
    (line,) = listed.structured_content["secrets"]
    assert set(line) == {"name", "updated_at", "updated_by", "used_by"}
    assert gone.structured_content == {"name": "A", "deleted": True, "breaks": []}
    assert missing.structured_content["error"]["code"] == "not_found"
    answers = [made, again, listed, gone, missing, bad, wrong]
    assert bad.is_error
    assert wrong.is_error
    assert VALUE not in json.dumps([a.model_dump(mode="json") for a in answers])


async def test_of_two_who_type_at_once_one_is_taken(house: House) -> None:
    house.secret_rooms.url = "http://127.0.0.1:8080"
    invitations = house.secret_rooms.invitations
    made = invitations.give(local_principal("mcp"), "A")
    assert made is not None
    takes = [invitations.take(OWNER, made.ticket, f"{VALUE}{n}") for n in range(2)]
    ended = await asyncio.gather(*takes, return_exceptions=True)
    assert [type(end).__name__ for end in ended] == ["str", "DicodeError"]
    assert house.secret_rooms.vault.value_of("A") == f"{VALUE}0"

"""The audit log, as an agent meets it."""

from __future__ import annotations

from mcp import Client
from mcphouse import VERSION, House, Opening
from test_mcp_history import call, refusal

from dicode_mcp.service.principal import local_principal
from dicode_mcp.testing.waiting import running
from dicode_mcp.tools.hub import Hub
from dicode_mcp.tools.server import create_mcp_server


async def test_actions_and_their_outcomes_are_shown_newest_first(
    connect: Opening, house: House
) -> None:
    async with running(house.audit.run()), connect() as client:
        await call(client, "run_task", id="hello")
        await refusal(client, "run_task", id="nope")
        await call(client, "sync_source", source="demo")
        found = (await call(client, "get_audit"))["entries"]
        told = [(e["action"], e["target"], e["outcome"]) for e in found]
        assert told == [
            ("sync_source", "demo", "ok"),
            ("run_task", "nope", "task_not_found"),
            ("run_task", "hello", "ok"),
        ]
        assert {e["surface"] for e in found} <= {"mcp", "http"}
        page = await call(client, "get_audit", limit=1, action="run_task")
        assert [e["target"] for e in page["entries"]] == ["nope"]
        rest = await call(
            client, "get_audit", limit=1, action="run_task", cursor=page["next_cursor"]
        )
        assert [e["target"] for e in rest["entries"]] == ["hello"]
        export = await call(client, "get_audit", export=True, target="h*")
        assert [e["target"] for e in export["entries"]] == ["hello"]
        assert len(export["entries"][0]["chain"]) == 64
        assert (await call(client, "get_audit", verify=True))["intact"] is True
        assert (await call(client, "get_audit", since="2999-01-01"))["entries"] == []


async def test_wrong_questions_are_answered_with_what_to_do_instead(connect: Opening) -> None:
    async with connect() as client:
        error = await refusal(client, "get_audit", since="yesterday")
        assert (error["code"], "for example" in error["hint"]) == ("invalid_argument", True)
        error = await refusal(client, "get_audit", cursor="x")
        assert "next_cursor" in error["hint"]


async def test_a_call_that_is_refused_is_in_it_and_a_reader_does_not_see_it(
    house: House, hub: Hub
) -> None:
    reader = local_principal("mcp", "agent").narrowed(read_only=True)
    owner = local_principal("mcp")
    servers = [
        create_mcp_server(house.services, hub, version=VERSION, principal=principal)
        for principal in (reader, owner)
    ]
    async with running(house.audit.run()):
        async with Client(servers[0]) as client:
            assert (await refusal(client, "run_task", id="hello"))["code"] == "forbidden"
            assert (await refusal(client, "get_audit"))["code"] == "forbidden"
        async with Client(servers[1]) as client:
            found = (await call(client, "get_audit", actor="agent"))["entries"]
    assert [(e["action"], e["target"]) for e in found] == [
        ("refused_call", "get_audit"),
        ("refused_call", "run_task"),
    ]

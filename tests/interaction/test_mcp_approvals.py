"""Approving as clients meet it: a human is asked by the client, or the call says what to type."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import mcp_types as t
import pytest
from mcp import MCPError
from mcphouse import House, Opening
from test_mcp_asking import answering

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.registry import Entry

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")


def let_wait(house: House, name: str = "hello") -> str:
    """Make a task's version wait; gives its hash."""
    entry = house.registry.get(name)
    assert entry is not None
    assert entry.task is not None
    wait = Condition(ConditionType.READY, False, "PendingApproval", "a human has to look")
    waiting: Entry = replace(entry, task=None, conditions=(wait,), waiting=entry.task)
    house.registry.apply("demo", [waiting])
    return entry.task.digest


async def test_a_human_who_says_yes_brings_the_version_in_force(
    connect: Opening, house: House
) -> None:
    digest = let_wait(house)
    asked: list[t.ElicitRequestParams] = []
    yes = t.ElicitResult(action="accept", content={"approve": True})
    async with connect(elicitation_callback=answering(yes, asked)) as client:
        shown = (await client.call_tool("get_task", {"id": "hello"})).structured_content
        result = await client.call_tool("approve_task", {"id": "hello", "hash": digest})
        again = await client.call_tool("approve_task", {"id": "hello", "hash": digest})
    assert shown["pending"]["hash"] == digest
    assert shown["pending"]["grants"]["trigger"] == {"manual": True}
    assert result.structured_content == {
        "id": "hello", "hash": digest, "approved": True, "in_force": True,
    }  # fmt: skip
    assert again.structured_content == result.structured_content
    assert len(asked) == 1
    assert digest[:12] in asked[0].message
    (approval,) = (await house.store.approvals())["hello"]
    assert approval.digest == digest


@pytest.mark.parametrize(
    "reply",
    [
        t.ElicitResult(action="decline"),
        t.ElicitResult(action="cancel"),
        t.ElicitResult(action="accept", content={"approve": False}),
    ],
    ids=["decline", "cancel", "no"],
)
async def test_a_human_who_does_not_say_yes_changes_nothing(
    connect: Opening, house: House, reply: t.ElicitResult
) -> None:
    digest = let_wait(house)
    async with connect(elicitation_callback=answering(reply, [])) as client:
        result = await client.call_tool("approve_task", {"id": "hello", "hash": digest})
        refused = await client.call_tool("run_task", {"id": "hello"})
    assert result.structured_content == {"id": "hello", "hash": digest, "approved": False}
    assert refused.structured_content["error"]["code"] == "task_not_ready"
    assert "approve_task" in refused.structured_content["error"]["hint"]
    assert not await house.store.approvals()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"id": "nope", "hash": "0" * 64}, "task_not_found"),
    ({"id": "hello", "hash": "latest"}, "invalid_argument"),
    ({"id": "hello", "hash": "0" * 64}, "conflict"),
    ({"id": "fails", "hash": "0" * 64}, "conflict"),
]


async def test_a_call_that_cannot_be_meant_says_what_to_correct(
    connect: Opening, house: House
) -> None:
    digest = let_wait(house)
    yes = t.ElicitResult(action="accept", content={"approve": True})
    asked: list[t.ElicitRequestParams] = []
    async with connect(elicitation_callback=answering(yes, asked)) as client:
        for arguments, code in WRONG:
            result = await client.call_tool("approve_task", arguments)
            error = result.structured_content["error"]
            assert error["code"] == code, arguments
            assert error["hint"]
        stale = await client.call_tool("approve_task", {"id": "hello", "hash": "0" * 64})
    assert asked == []
    assert stale.structured_content["error"]["data"] == {"hash": digest}


async def test_a_client_that_cannot_ask_is_told_what_a_human_types(
    connect: Opening, house: House
) -> None:
    digest = let_wait(house)
    async with connect() as client:
        result = await client.call_tool("approve_task", {"id": "hello", "hash": digest})
    error = result.structured_content["error"]
    assert error["code"] == "forbidden"
    assert error["hint"].endswith("dicode task approve hello")
    assert not await house.store.approvals()


async def question(connect: Opening, house: House) -> str:
    """Give what a human is asked about the version that waits."""
    digest = let_wait(house)
    asked: list[t.ElicitRequestParams] = []
    no = t.ElicitResult(action="decline")
    async with connect(elicitation_callback=answering(no, asked)) as client:
        await client.call_tool("approve_task", {"id": "hello", "hash": digest})
    return asked[0].message


HEAD = "name: hello\nruntime: python\ntrigger: {manual: true}\n"


async def test_many_variables_do_not_hide_what_is_dangerous(connect: Opening, house: House) -> None:
    names = ", ".join(f"VARIABLE_{number}" for number in range(300))
    programs = ", ".join(f"program{number}" for number in range(100))
    fs = f"[{{path: /{'a' * 400}, permission: rw}}]"
    house.write(
        "hello",
        f'{HEAD}permissions: {{env: [{names}], run: [{programs}, "*"], net: ["*"], fs: {fs}}}\n',
    )
    message = await question(connect, house)
    grants = message.partition("It may:\n")[2].splitlines()
    assert grants[0].startswith('- run: ["*", "program0"')
    assert " more]" in grants[0]
    assert grants[1].startswith('- fs: [{"permission": "rw", "path": "/aaa')
    assert grants[2] == '- net: ["*"]'
    assert [line.split(":")[0] for line in grants[3:6]] == [
        "- env",
        "- runtime",
        "- trigger.manual",
    ]
    assert all(len(line) < 400 for line in grants[:6])
    assert len(message) <= 12_000
    assert "Not shown here: " in message
    assert message.endswith("dicode task approve hello shows all.")


async def test_the_question_shows_the_code_before_padding(connect: Opening, house: House) -> None:
    for number in range(231):
        (house.folder / "hello" / f"a{number:03}.txt").write_text("padding\n" * 50)
    (house.folder / "hello" / "task.py").write_text('def main():\n    return "Approve? yes"\n')
    await house.sync("demo")
    message = await question(connect, house)
    assert '- added "task.yaml"\n- added "task.py"\n- added "a000.txt"' in message
    assert '"+    return \\"Approve? yes\\""' in message
    assert len(message) <= 12_000
    assert message.splitlines()[-1].startswith("Not shown here: ")
    assert "names of files; the differences of " in message.splitlines()[-1]


async def test_a_short_version_is_shown_whole_in_the_question(
    connect: Opening, house: House
) -> None:
    house.write("hello", HEAD)
    message = await question(connect, house)
    assert '"+def main(): pass"' in message
    assert "Not shown" not in message


async def test_the_version_that_waits_can_be_read_whole(connect: Opening, house: House) -> None:
    (house.folder / "hello" / "task.py").write_text("pass\n" * 40_000 + "evil = 1\n")
    await house.sync("demo")
    digest = let_wait(house)
    async with connect() as client:
        short = (await client.call_tool("get_task", {"id": "hello"})).structured_content["pending"]
        read = (await client.read_resource("dicode://tasks/hello/pending")).contents[0]
        forms = (await client.list_resource_templates()).resource_templates
        with pytest.raises(MCPError, match="waits for an approval") as raised:
            await client.read_resource("dicode://tasks/fails/pending")
    assert "dicode://tasks/{id}/pending" in [form.uri_template for form in forms]
    assert short["changes"]["files"][1]["diff_cut"]
    assert isinstance(read, t.TextResourceContents)
    whole = json.loads(read.text)
    assert whole["hash"] == digest
    assert whole["changes"]["files"][1]["diff"].endswith("+evil = 1")
    assert "truncated" not in whole["changes"]
    assert raised.value.code == t.INVALID_PARAMS

"""Writing tasks by tools alone, as an agent without a file system does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from dulwich.repo import Repo
from mcp import Client, MCPError
from mcp.server import Server
from mcphouse import VERSION, House, Opening

from dicode_mcp.protocols import AuditEntry
from dicode_mcp.service.principal import Principal, local_principal
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.tools.hub import Hub
from dicode_mcp.tools.server import create_mcp_server


@pytest.fixture
def client(server: Server[Any]) -> Client:
    return Client(server, mode="2026-07-28")


async def good(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def bad(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.content
    assert result.structured_content is not None
    error: dict[str, Any] = result.structured_content["error"]
    assert error["hint"], error
    return error


async def test_a_task_is_made_read_changed_and_tried(client: Client, house: House) -> None:
    async with client:
        made = await good(
            client, "new_task", source="demo", id="fresh", template="python", description="New."
        )
        assert made["files"] == ["task.py", "task.yaml", "task_test.py"]
        assert (made["id"], made["live"], made["valid"]) == ("fresh", True, True)
        shown = await good(client, "get_task", id="fresh")
        assert [file["path"] for file in shown["files"]] == made["files"]
        assert shown["folder"] == made["folder"] == str(house.folder / "fresh")
        read = await good(client, "read_task_file", id="fresh", path="task.yaml")
        assert read["content"].startswith("apiVersion: dicode/v1\n")
        changed = read["content"].replace("timeout: 60s", "timeout: 5s")
        written = await good(
            client,
            "write_task_file",
            id="fresh",
            path="task.yaml",
            content=changed,
            expected_hash=read["hash"],
        )
        assert (written["live"], written["valid"]) == (True, True)
        assert "-timeout: 60s\n+timeout: 5s\n" in written["diff"]
        assert (await good(client, "get_task", id="fresh"))["spec"]["timeout"] == "5s"


async def test_a_broken_edit_is_answered_with_its_problems(client: Client, house: House) -> None:
    async with client:
        before = (await good(client, "get_task", id="hello"))["hash"]
        read = await good(client, "read_task_file", id="hello", path="task.yaml")
        broken = read["content"] + "timeoutt: 5s\n"
        written = await good(
            client, "write_task_file", id="hello", path="task.yaml", content=broken
        )
        assert (written["live"], written["valid"]) == (False, False)
        assert written["problems"][0]["path"] == "timeoutt"
        assert "timeout" in written["problems"][0]["hint"]
        assert written["problems"][0]["line"] > 1
        mended = await good(
            client, "write_task_file", id="hello", path="task.yaml", content=read["content"]
        )
        assert (mended["live"], mended["valid"]) == (True, True)
        assert (await good(client, "get_task", id="hello"))["hash"] == before


async def test_two_who_edit_at_once_do_not_overwrite_each_other(client: Client) -> None:
    async with client:
        seen = await good(client, "read_task_file", id="hello", path="task.py")
        common = {"id": "hello", "path": "task.py", "expected_hash": seen["hash"]}
        first = await good(client, "write_task_file", **common, content="def main(): return 1\n")
        error = await bad(client, "write_task_file", **common, content="def main(): return 2\n")
        assert error["code"] == "conflict"
        assert error["data"]["hash"] == first["hash"]
        now = await good(client, "read_task_file", id="hello", path="task.py")
        assert now["content"] == "def main(): return 1\n"


async def test_a_long_file_comes_in_parts_that_join_to_the_whole(client: Client) -> None:
    text = "".join(f"# line {number} {'x' * 60}\n" for number in range(1, 1001))
    async with client:
        await good(client, "write_task_file", id="hello", path="long.py", content=text)
        parts: list[str] = []
        offset: int | None = 1
        while offset is not None:
            part = await good(client, "read_task_file", id="hello", path="long.py", offset=offset)
            assert part["lines"] == 1000
            assert len(part["content"]) <= 16_000
            parts.append(part["content"])
            offset = part.get("next_offset")
        assert "".join(parts) == text
        some = await good(client, "read_task_file", id="hello", path="long.py", offset=3, limit=2)
        assert some["content"].startswith("# line 3 ")
        assert some["next_offset"] == 5
        await good(client, "write_task_file", id="hello", path="wide.txt", content="y" * 20_000)
        wide = await good(client, "read_task_file", id="hello", path="wide.txt")
        assert (wide["truncated"], len(wide["content"])) == (True, 16_000)
        whole = await client.read_resource("dicode://tasks/hello/files/wide.txt")
        assert whole.contents[0].model_dump()["text"] == "y" * 20_000


async def test_what_is_not_text_is_not_shown_as_such(client: Client, house: House) -> None:
    (house.folder / "hello/data.bin").write_bytes(b"\xff\xfe\x00")
    async with client:
        error = await bad(client, "read_task_file", id="hello", path="data.bin")
        assert error["code"] == "not_supported"


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("new_task", {"source": "demo", "id": "hello", "template": "python"}, "conflict"),
    ("new_task", {"source": "demo", "id": "hello/below", "template": "python"}, "conflict"),
    ("new_task", {"source": "demo", "id": "../out", "template": "python"}, "invalid_argument"),
    ("new_task", {"source": "demo", "id": "/etc", "template": "python"}, "invalid_argument"),
    ("new_task", {"source": "demo", "id": ".git", "template": "python"}, "invalid_argument"),
    ("new_task", {"source": "demo", "id": "node_modules", "template": "deno"}, "invalid_argument"),
    ("new_task", {"source": "nobody", "id": "x", "template": "python"}, "source_not_found"),
    ("new_task", {"source": "demo", "id": "x", "template": "perl"}, "invalid_argument"),
    (
        "new_task",
        {"source": "demo", "id": "x", "template": "python", "trigger": "chain"},
        "invalid_argument",
    ),
    ("read_task_file", {"id": "nobody", "path": "task.py"}, "task_not_found"),
    ("read_task_file", {"id": "hello", "path": "../fails/task.py"}, "invalid_argument"),
    ("read_task_file", {"id": "hello", "path": "nothing.py"}, "not_found"),
    ("write_task_file", {"id": "hello", "path": "/x", "content": ""}, "invalid_argument"),
    ("write_task_file", {"id": "hello", "path": ".env", "content": ""}, "invalid_argument"),
    (
        "write_task_file",
        {"id": "hello", "path": "x.py", "content": "", "expected_hash": "zz"},
        "invalid_argument",
    ),
    ("commit_task", {"id": "hello", "message": " "}, "invalid_argument"),
    ("commit_task", {"id": "hello", "message": "x", "branch": "a b"}, "invalid_argument"),
    ("commit_task", {"id": "hello", "message": "x", "author": "Ada"}, "invalid_argument"),
    ("commit_task", {"id": "hello", "message": "x"}, "conflict"),
]


@pytest.mark.parametrize(("tool", "arguments", "code"), WRONG)
async def test_wrong_calls_say_what_to_correct(
    client: Client, house: House, tool: str, arguments: dict[str, Any], code: str
) -> None:
    before = {p: p.read_bytes() for p in house.folder.parent.rglob("*.py")}
    async with client:
        assert (await bad(client, tool, **arguments))["code"] == code
    assert {p: p.read_bytes() for p in house.folder.parent.rglob("*.py")} == before


async def test_a_task_in_a_work_tree_is_committed(client: Client, house: House) -> None:
    Repo.init(str(house.folder), default_branch=b"main").close()
    async with client:
        made = await good(
            client, "commit_task", id="hello", message="First", author="Ada <ada@example.com>"
        )
    assert (made["branch"], made["pushed"], made["author"]) == (
        "main",
        False,
        "Ada <ada@example.com>",
    )
    assert [(file["path"], file["change"]) for file in made["files"]] == [
        ("task.py", "added"),
        ("task.yaml", "added"),
    ]
    with Repo(str(house.folder)) as repo:
        assert repo.head().decode() == made["commit"]


@pytest.mark.parametrize("template", ["python", "deno"])
@pytest.mark.parametrize("trigger", ["manual", "cron", "webhook", "chain", "daemon"])
async def test_every_template_is_a_valid_task(
    client: Client, house: House, template: str, trigger: str
) -> None:
    value = {"chain": {"trigger_value": "hello"}}.get(trigger, {})
    async with client:
        made = await good(
            client,
            "new_task",
            source="demo",
            id="fresh",
            template=template,
            trigger=trigger,
            name='Odd "name": #1',
            **value,
        )
        assert (made["live"], made["problems"]) == (True, [])
        shown = await good(client, "get_task", id="fresh")
        assert shown["runtime"] == template
        assert next(iter(shown["trigger"])) == trigger
        assert shown["name"] == 'Odd "name": #1'


async def test_a_caller_without_the_verb_neither_sees_nor_calls_them(
    house: House, hub: Hub
) -> None:
    reader = Principal("reader", "mcp", frozenset({"read", "run"}))
    server = create_mcp_server(house.services, hub, version=VERSION, principal=reader)
    async with Client(server) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        tools = {"new_task", "read_task_file", "write_task_file", "commit_task", "switch_dev_mode"}
        assert not names & tools
        error = await bad(client, "read_task_file", id="hello", path="task.py")
        assert error["code"] == "forbidden"
        with pytest.raises(MCPError):
            await client.read_resource("dicode://tasks/hello/files/task.py")


async def test_a_caller_with_globs_writes_only_what_it_sees(house: House, hub: Hub) -> None:
    narrow = local_principal("mcp").narrowed(tasks="hello*")
    server = create_mcp_server(house.services, hub, version=VERSION, principal=narrow)
    async with Client(server) as client:
        await good(client, "new_task", source="demo", id="hello-two", template="python")
        for tool, arguments in (
            ("new_task", {"source": "demo", "id": "other", "template": "python"}),
            ("switch_dev_mode", {"source": "demo", "enabled": True}),
            ("sync_source", {"source": "demo", "commit": "1" * 40}),
            ("sync_source", {"source": "demo", "unpin": True}),
        ):
            assert (await bad(client, tool, **arguments))["code"] == "forbidden"
        house.write("fails", "name: [\n")
        listed = await good(client, "list_sources")
        unknown = await bad(client, "get_task", id="fail")
        assert "fails" not in str([listed, unknown])
        error = await bad(client, "write_task_file", id="fails", path="task.py", content="")
        assert error["code"] == "task_not_found"
        assert not (house.folder / "other").exists()


@pytest.fixture(params=["socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_every_client_is_told_of_a_switch(
    connect: Opening, mode: str, house: House, hub: Hub, tmp_path: Path
) -> None:
    from test_mcp_notifications import listening

    (tmp_path / "dev").mkdir()
    async with listening(connect, mode) as heard, connect() as other:
        await good(
            other,
            "switch_dev_mode",
            source="demo",
            enabled=True,
            local_path=str(tmp_path / "dev"),
        )
        await until(lambda: "resources" in heard.words)


async def test_what_was_done_is_in_the_audit_log(client: Client, house: House) -> None:
    async with client, running(house.audit.run()):
        await good(client, "new_task", source="demo", id="fresh", template="python")
        await good(client, "write_task_file", id="fresh", path="a.txt", content="s3cret-content")
        await bad(client, "commit_task", id="fresh", message="Change")
        await good(client, "switch_dev_mode", source="demo", enabled=True)
        entries: list[AuditEntry] = []

        async def stored() -> bool:
            entries[:] = (await house.store.list_audit()).items
            return len(entries) >= 4

        while not await stored():
            pass
    told = {entry.action: (entry.target, entry.outcome) for entry in entries}
    assert told == {
        "new_task": ("fresh", "ok"),
        "write_task_file": ("fresh", "ok"),
        "commit_task": ("fresh", "conflict"),
        "switch_dev_mode": ("demo", "ok"),
    }
    assert "s3cret-content" not in repr(entries)


async def test_files_written_are_never_half_there(client: Client, house: House) -> None:
    async with client:
        for number in range(3):
            text = f"# {number}\n" * 1000
            await good(client, "write_task_file", id="hello", path="task.py", content=text)
            assert (house.folder / "hello/task.py").read_text() == text
    assert not [name for name in os.listdir(house.folder / "hello") if name.startswith(".")]

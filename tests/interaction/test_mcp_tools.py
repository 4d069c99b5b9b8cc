"""What an agent sees of the tools, with the SDK's own client, over every transport in both eras."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import anyio
import mcp_types as t
import pytest
from dulwich.repo import Repo
from jsonschema import Draft202012Validator
from mcp import MCPError
from mcphouse import BIG, House, Opening

from dicode_mcp.testing.waiting import until

SHARING = {"approve_task", "install_task", "uninstall_task", "update_task"}
"""Their results, which take a remote, are checked where they are tried."""
NAMES = {
    "answer_run",
    "get_audit",
    "secrets_set",
    "secrets_list",
    "secrets_delete",
    "cancel_run",
    "commit_task",
    "get_logs",
    "get_run",
    "get_runs",
    "get_stats",
    "get_status",
    "get_task",
    "pin_run",
    "prune",
    "list_sources",
    "list_tasks",
    "new_task",
    "read_task_file",
    "replay_run",
    "run_task",
    "set_task_enabled",
    "switch_dev_mode",
    "sync_source",
    "suggest_permissions",
    "validate_task",
    "write_task_file",
    "approve_task",
    "install_task",
    "search_tasks",
    "uninstall_task",
    "update_task",
}


def value(result: t.CallToolResult) -> dict[str, Any]:
    """Give a good result's content, which its text repeats."""
    assert not result.is_error, result.content
    return _content(result)


def error(result: t.CallToolResult) -> dict[str, Any]:
    """Give a failed call's error."""
    assert result.is_error, result.content
    return _content(result)["error"]


def _content(result: t.CallToolResult) -> dict[str, Any]:
    text = result.content[0]
    assert isinstance(text, t.TextContent)
    structured: dict[str, Any] = result.structured_content
    assert json.loads(text.text) == structured
    assert ": " not in text.text.split('"', 1)[0]
    return structured


async def test_every_tool_is_listed_and_called(connect: Opening, house: House) -> None:
    async with connect() as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        assert listed == sorted(NAMES)
        tasks = value(await client.call_tool("list_tasks", {"query": "hello"}))["tasks"]
        assert [task["id"] for task in tasks] == ["hello"]
        task = value(await client.call_tool("get_task", {"id": "hello"}))
        assert task["spec"]["params"]
        run = value(await client.call_tool("run_task", {"id": "hello", "params": {"who": "Ann"}}))
        assert run["status"] == "success"
        assert run["return_value"]["params"]["who"] == "Ann"
        run_id = {"run_id": run["run_id"]}
        assert value(await client.call_tool("get_run", run_id))["status"] == "success"
        assert value(await client.call_tool("replay_run", run_id))["replay_of"] == run["run_id"]
        assert value(await client.call_tool("get_runs", {"task": "hello"}))["runs"]
        logs = value(await client.call_tool("get_logs", run_id))
        assert [line["message"] for line in logs["lines"]] == ["hello begins"]
        assert value(await client.call_tool("cancel_run", run_id))["status"] == "success"
        sources = value(await client.call_tool("list_sources", {}))["sources"]
        assert sources[0]["name"] == "demo"
        assert value(await client.call_tool("sync_source", {"source": "demo"}))["name"] == "demo"
        assert house.syncs == 1
        assert value(await client.call_tool("get_status", {}))["version"] == "9.9.9"
        assert value(await client.call_tool("validate_task", {"id": "hello"}))["valid"] is True
        paused = {"id": "hello", "enabled": False, "reason": "holiday"}
        assert value(await client.call_tool("set_task_enabled", paused))["enabled"] is False
        assert error(await client.call_tool("run_task", {"id": "hello"}))["code"] == "task_paused"
        assert "entries" in value(await client.call_tool("get_audit", {}))


async def test_all_wrong_arguments_of_a_call_are_named_at_once_without_their_values(
    connect: Opening,
) -> None:
    wrong = {"idd": "hello", "wait_seconds": 99, "params": "s3cr3t-value"}
    async with connect() as client:
        result = await client.call_tool("run_task", wrong)
    found = error(result)
    assert found["code"] == "invalid_argument"
    assert {p["path"] for p in found["data"]["problems"]} == {
        "id",
        "idd",
        "params",
        "wait_seconds",
    }
    assert "did you mean 'id'?" in found["message"]
    assert "'id' is required" in found["message"]
    assert "must be at most 55" in found["message"]
    assert "must be an object, found a string" in found["message"]
    assert "id (required), params, input, wait_seconds, priority, idempotency_key" in found["hint"]
    assert "s3cr3t" not in result.model_dump_json()


async def test_an_unknown_tool_is_a_protocol_error_with_the_nearest_names(
    connect: Opening,
) -> None:
    async with connect() as client:
        with pytest.raises(MCPError, match="nearest: run_task") as raised:
            await client.call_tool("run_tasks", {})
    assert raised.value.code == t.INVALID_PARAMS


async def test_an_unknown_task_is_answered_with_the_nearest_names(connect: Opening) -> None:
    async with connect() as client:
        found = error(await client.call_tool("run_task", {"id": "helo"}))
    assert found["code"] == "task_not_found"
    assert "hello" in found["message"] + found["hint"]


async def test_run_task_answers_within_the_wait_and_get_run_waits_for_the_end(
    connect: Opening, house: House
) -> None:
    async with connect() as client:
        run = value(await client.call_tool("run_task", {"id": "slow", "wait_seconds": 0}))
        assert run["status"] in ("queued", "running")
        assert "get_run" in run["next"]
        house.gate.set()
        ask = {"run_id": run["run_id"], "wait_seconds": 20}
        ended = value(await client.call_tool("get_run", ask))
    assert (ended["status"], ended["return_value"]) == ("success", "done")


async def test_progress_is_told_while_a_run_goes_on(connect: Opening, house: House) -> None:
    heard: list[tuple[float, float | None, str | None]] = []
    came = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))
        came.set()

    async def release() -> None:
        await house.progress_until(came)
        house.gate.set()

    async with connect() as client, asyncio.TaskGroup() as group:
        group.create_task(release())
        run = value(
            await client.call_tool("run_task", {"id": "slow"}, progress_callback=on_progress)
        )
    assert run["status"] == "success"
    assert heard[0][1:] == (1_000_000, "some part")
    assert [told[0] for told in heard] == sorted({told[0] for told in heard})


async def test_leaving_during_run_task_leaves_the_run_alive(connect: Opening, house: House) -> None:
    async with connect() as client:
        with anyio.move_on_after(20) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "run_task", {"id": "slow"})
                await until(lambda: house.started.is_set())
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught
        run = value(await client.call_tool("get_runs", {"task": "slow"}))["runs"][0]
        assert run["status"] == "running"
        house.gate.set()
        ended = value(
            await client.call_tool("get_run", {"run_id": run["run_id"], "wait_seconds": 20})
        )
    assert ended["status"] == "success"


async def test_cancel_run_ends_a_run(connect: Opening, house: House) -> None:
    async with connect() as client:
        run = value(await client.call_tool("run_task", {"id": "slow", "wait_seconds": 0}))
        await until(lambda: house.started.is_set())
        ended = value(await client.call_tool("cancel_run", {"run_id": run["run_id"]}))
    assert ended["status"] == "cancelled"


async def test_the_same_idempotency_key_gives_the_same_run(connect: Opening) -> None:
    call = {"id": "hello", "idempotency_key": "k1"}
    async with connect() as client:
        first = value(await client.call_tool("run_task", call))
        second = value(await client.call_tool("run_task", call))
    assert first["run_id"] == second["run_id"]


async def test_a_failed_run_names_the_place_and_the_next_call(connect: Opening) -> None:
    async with connect() as client:
        run = value(await client.call_tool("run_task", {"id": "fails"}))
    assert run["status"] == "failure"
    assert (run["error"]["file"], run["error"]["line"]) == ("task.py", 7)
    assert run["logs_tail"][0]["message"] == "fails begins"
    assert "get_logs" in run["next"]


async def test_a_value_too_long_for_an_answer_is_left_out_and_linked(connect: Opening) -> None:
    async with connect() as client:
        result = await client.call_tool("run_task", {"id": "big"})
        run = value(result)
        assert run["return_value_truncated"] is True
        assert "return_value" not in run
        assert len(json.dumps(run)) < 20_000
        link = result.content[1]
        assert isinstance(link, t.ResourceLink)
        assert link.uri == f"dicode://runs/{run['run_id']}"
        read = (await client.read_resource(link.uri)).contents[0]
    assert isinstance(read, t.TextResourceContents)
    assert json.loads(read.text)["return_value"] == "é" * BIG


async def test_long_log_lines_are_cut_with_a_mark_and_whole_as_a_resource(
    connect: Opening,
) -> None:
    async with connect() as client:
        run = value(await client.call_tool("run_task", {"id": "chatty"}))
        logs = value(await client.call_tool("get_logs", {"run_id": run["run_id"]}))
        whole = (await client.read_resource(f"dicode://runs/{run['run_id']}/logs")).contents[0]
    assert logs["lines"][1]["message"].endswith("[3000 more characters]")
    assert run["logs_tail"][1]["message"].endswith("[3000 more characters]")
    assert isinstance(whole, t.TextResourceContents)
    assert json.loads(whole.text)["lines"][1]["message"] == "x" * 5_000


async def test_resources_are_listed_and_read(connect: Opening) -> None:
    async with connect() as client:
        uris = [str(r.uri) for r in (await client.list_resources()).resources]
        forms = [
            r.uri_template for r in (await client.list_resource_templates()).resource_templates
        ]
        read = (await client.read_resource("dicode://tasks/hello")).contents[0]
        with pytest.raises(MCPError, match="not found") as raised:
            await client.read_resource("dicode://tasks/nope")
    assert uris[0] == "dicode://sources"
    assert "dicode://tasks/hello" in uris
    assert "dicode://runs/{id}" in forms
    assert isinstance(read, t.TextResourceContents)
    assert json.loads(read.text)["id"] == "hello"
    assert raised.value.code == t.INVALID_PARAMS
    assert raised.value.data == {"uri": "dicode://tasks/nope"}


async def test_results_have_no_field_that_the_output_schema_does_not_know(
    connect: Opening, house: House
) -> None:
    house.write("broken", "name: broken\nruntim: python\n")
    async with connect() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        run = value(await client.call_tool("run_task", {"id": "fails"}))
        done = {"run_id": run["run_id"]}
        calls: list[tuple[str, dict[str, Any]]] = [
            ("list_tasks", {}),
            ("get_task", {"id": "hello"}),
            ("get_task", {"id": "broken"}),
            ("run_task", {"id": "hello"}),
            ("run_task", {"id": "fails"}),
            ("get_runs", {}),
            ("get_run", done),
            ("get_logs", done),
            ("get_run", {**done, "tree": True}),
            ("replay_run", done),
            ("cancel_run", done),
            ("list_sources", {}),
            ("sync_source", {"source": "demo"}),
            ("get_status", {}),
            ("get_stats", {}),
            ("pin_run", done),
            ("prune", {"dry_run": True, "older_than": "0s"}),
            ("validate_task", {"id": "broken"}),
            ("suggest_permissions", {"id": "hello"}),
            ("set_task_enabled", {"id": "hello", "enabled": False}),
            ("switch_dev_mode", {"source": "demo", "enabled": False}),
            ("new_task", {"source": "demo", "id": "fresh", "template": "python"}),
            ("read_task_file", {"id": "hello", "path": "task.py"}),
            ("write_task_file", {"id": "hello", "path": "task.py", "content": "result = 1\n"}),
            ("commit_task", {"id": "hello", "message": "First", "author": "A <a@example.com>"}),
            ("search_tasks", {"query": "nothing"}),
            ("get_audit", {}),
            ("get_audit", {"verify": True}),
            ("secrets_set", {"name": "X", "value": "a value"}),
            ("secrets_list", {}),
            ("secrets_delete", {"name": "X"}),
        ]
        assert {name for name, _ in calls} == NAMES - SHARING - {"answer_run"}
        Repo.init(str(house.folder), default_branch=b"main").close()
        for name, arguments in calls:
            found = value(await client.call_tool(name, arguments))
            # What answers as get_run does says no more than that.
            schema = tools["get_run" if name == "cancel_run" else name].output_schema
            assert schema is not None
            check: Any = Draft202012Validator(_closed(schema))
            problems = list(check.iter_errors(found))
            assert problems == [], name


async def test_a_failed_call_fits_the_output_schema_too(connect: Opening) -> None:
    """Clients check it as they check a good one, and would hide the error behind their own."""
    async with connect() as client:
        for tool in (await client.list_tools()).tools:
            failed = await client.call_tool(tool.name, {"no such": 1})
            assert error(failed)["code"] == "invalid_argument"
            check: Any = Draft202012Validator(tool.output_schema or {})
            assert check.is_valid(failed.structured_content), tool.name
            assert not check.is_valid({}), tool.name


def _closed(schema: Any) -> Any:
    """Give a schema in which objects with named properties take no others."""
    if isinstance(schema, list):
        return [_closed(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in cast("dict[str, Any]", schema).items()}
    if "properties" in closed and closed.get("type") == "object":
        closed["additionalProperties"] = False
    return closed

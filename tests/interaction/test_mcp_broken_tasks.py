"""What an agent sees of broken tasks, and of calls that name what is not there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server.lowlevel import Server
from mcphouse import House

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.spec.model import Task

BROKEN = "name: x\nruntime: python\n"


async def call(server: Server[Any], tool: str, **arguments: Any) -> dict[str, Any]:
    async with Client(server) as client:
        result = await client.call_tool(tool, arguments)
    assert result.structured_content is not None
    return result.structured_content


async def test_a_source_shows_each_broken_task_with_its_error(
    house: House, server: Server[Any]
) -> None:
    house.write("bad", BROKEN)
    (source,) = (await call(server, "list_sources"))["sources"]
    (broken,) = source["broken"]
    assert broken["id"] == "bad"
    assert broken["message"].startswith("task.yaml:1: trigger: is required and missing")
    assert source["broken_count"] == 1
    assert "broken_rest" not in source
    (condition,) = [c for c in source["conditions"] if c["type"] == "TasksReady"]
    assert (condition["status"], condition["reason"]) == ("False", "SomeBroken")
    assert condition["message"] == "1 of 6 tasks is broken: bad"
    house.remove("bad")
    (source,) = (await call(server, "list_sources"))["sources"]
    assert "broken" not in source


async def test_many_broken_tasks_are_shown_in_part_with_the_call_for_the_rest(
    house: House, server: Server[Any]
) -> None:
    for number in range(14):
        house.write(f"bad{number:02}", BROKEN)
    (source,) = (await call(server, "list_sources"))["sources"]
    assert len(source["broken"]) == 10
    assert source["broken_count"] == 14
    assert 'list_tasks with source "demo" and status "broken"' in source["broken_rest"]
    rest = await call(server, "list_tasks", source="demo", status="broken")
    assert len(rest["tasks"]) == 14


async def test_an_unknown_source_is_an_error_with_the_nearest(
    house: House, server: Server[Any]
) -> None:
    error = (await call(server, "list_tasks", source="demos"))["error"]
    assert error["code"] == "source_not_found"
    assert error["hint"] == "did you mean 'demo'?"


async def test_an_unknown_tag_is_told(house: House, server: Server[Any]) -> None:
    page = await call(server, "list_tasks", tag="dmo")
    assert page["tasks"] == []
    assert page["note"] == "no task has the tag 'dmo'. Did you mean 'demo'? Tags here: demo."
    assert "note" not in await call(server, "list_tasks", tag="demo", query="zzz")


async def test_a_task_whose_runtime_is_missing_is_not_called_ready(
    house: House, server: Server[Any]
) -> None:
    lacks = Condition(ConditionType.RUNTIME, False, "Unhealthy", "docker is not there")
    house.registry.set_conditions("hello", "test", [lacks])
    found = await call(server, "list_tasks", status="unavailable")
    assert [task["id"] for task in found["tasks"]] == ["hello"]
    ready = await call(server, "list_tasks", status="ready")
    assert "hello" not in [task["id"] for task in ready["tasks"]]
    counts = (await call(server, "get_status"))["tasks"]
    assert (counts["total"], counts["ready"], counts["unavailable"]) == (5, 4, 1)


async def test_a_task_that_lost_its_id_is_a_conflict(house: House, server: Server[Any]) -> None:
    entry = house.registry.get("hello")
    assert entry
    house.registry.apply("other", [replace(entry, source="other")])
    found = await call(server, "list_tasks", status="conflict")
    assert [(task["id"], task["source"]) for task in found["tasks"]] == [("hello", "other")]
    counts = (await call(server, "get_status"))["tasks"]
    assert (counts["total"], counts["conflict"], counts["broken"]) == (6, 1, 0)


async def test_a_script_error_is_a_problem_with_file_and_line(
    house: House, server: Server[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Condition(ConditionType.READY, False, "ScriptError", "task.py:3: invalid syntax")

    def check(task: Task) -> list[Condition]:
        return [fault]

    monkeypatch.setattr(house.services.tasks, "_check", check)
    verdict = await call(server, "validate_task", id="hello")
    assert verdict["valid"] is False
    (problem,) = verdict["problems"]
    assert (problem["file"], problem["line"]) == ("task.py", 3)
    assert problem["message"] == "invalid syntax"


async def test_wrong_paths_are_told_apart(
    house: House, server: Server[Any], tmp_path: Path
) -> None:
    said = {
        name: (await call(server, "validate_task", path=path))["error"]
        for name, path in {
            "relative": "tasks/hello",
            "missing": str(tmp_path / "nowhere"),
            "file": str(house.folder / "hello" / "task.py"),
        }.items()
    }
    assert said["relative"]["code"] == "invalid_argument"
    assert "path is relative: 'tasks/hello'" in said["relative"]["message"]
    assert said["missing"]["code"] == "not_found"
    assert f"there is no folder {tmp_path / 'nowhere'}" in said["missing"]["message"]
    assert "is a file, and not one named task.yaml" in said["file"]["message"]
    whole = await call(server, "validate_task", path=str(house.folder / "hello" / "task.yaml"))
    assert whole["valid"] is True

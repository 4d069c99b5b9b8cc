"""Commands that write: ``source dev`` and ``task new``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Dicode, FakeServer, ToolError


def source(**more: Any) -> dict[str, Any]:
    return {
        "name": "src",
        "type": "git",
        "url": "https://example.com/tasks.git",
        "dev_mode": bool(more),
        "tasks": 2,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Searched"}],
        **({"dev": more} if more else {}),
    }


def test_a_branch_the_remote_lacks_is_said_to_be_new(dicode: Dicode, server: FakeServer) -> None:
    server.tools["switch_dev_mode"] = lambda a: source(
        folder="/f", branch=a["branch"], new_branch=True
    )
    said = dicode("source", "dev", "src", "--branch", "fix/typo")
    assert said.out.splitlines()[0] == (
        "src: dev mode is on; it shows /f (new branch fix/typo; the remote gets it with the first"
        " commit)"
    )


def test_a_folder_is_named_absolutely(dicode: Dicode, server: FakeServer, tmp_path: Path) -> None:
    server.tools["switch_dev_mode"] = lambda a: source(local_path=a["local_path"], folder="/f")
    said = dicode("source", "dev", "src", "--local-path", "mine")
    assert said.code == 0
    assert said.out.splitlines()[0] == "src: dev mode is on; it shows /f"
    wanted = {"source": "src", "enabled": True, "local_path": str(tmp_path / "mine")}
    assert server.calls == [("switch_dev_mode", wanted)]
    assert "git (dev)" in said.out


def test_a_branch_the_dev_refs_and_the_end_are_said(dicode: Dicode, server: FakeServer) -> None:
    answers = iter(
        [source(branch="fix/x", folder="/data/dev/x"), source(dev_refs_only=True), source()]
    )
    server.tools["switch_dev_mode"] = lambda _: next(answers)
    branch = dicode("source", "dev", "src", "--branch", "fix/x").out
    assert "it shows /data/dev/x (branch fix/x)" in branch
    assert "dev_refs are used" in dicode("source", "dev", "src").out
    assert "dev mode is off" in dicode("source", "dev", "src", "--disable").out
    assert [call[1] for call in server.calls] == [
        {"source": "src", "enabled": True, "branch": "fix/x"},
        {"source": "src", "enabled": True},
        {"source": "src", "enabled": False},
    ]


def test_two_places_at_once_are_a_usage_error(dicode: Dicode, server: FakeServer) -> None:
    said = dicode("source", "dev", "src", "--branch", "x", "--disable")
    assert said.code == 2
    assert server.calls == []


def test_a_refusal_is_shown_with_what_to_do(dicode: Dicode, server: FakeServer) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise ToolError("not_found", "local_path does not exist", "create it")

    server.tools["switch_dev_mode"] = refuse
    said = dicode("source", "dev", "src", "--local-path", "/nowhere")
    assert said.code == 1
    assert said.err.splitlines() == ["dicode: local_path does not exist", "  create it"]


def test_a_new_task_goes_to_the_first_source_that_can_be_written(
    dicode: Dicode, server: FakeServer
) -> None:
    local: dict[str, Any] = {
        "name": "mine",
        "type": "local",
        "path": "/srv",
        "dev_mode": False,
        "conditions": [],
    }
    server.tools["list_sources"] = lambda _: {"sources": [source(), local]}
    server.tools["new_task"] = lambda a: {
        "id": a["id"],
        "folder": "/srv/daily",
        "files": ["task.py", "task.yaml"],
        "live": True,
        "conditions": [],
    }
    said = dicode("task", "new", "daily", "--trigger", "cron", "--on", "0 9 * * *")
    assert said.code == 0
    assert said.out.splitlines() == [
        "/srv/daily/task.py",
        "/srv/daily/task.yaml",
        "daily is live; try it: dicode run daily",
    ]
    assert server.calls[-1] == (
        "new_task",
        {
            "source": "mine",
            "id": "daily",
            "template": "python",
            "trigger": "cron",
            "trigger_value": "0 9 * * *",
        },
    )


def test_a_new_task_that_is_not_in_force_fails_with_its_problems(
    dicode: Dicode, server: FakeServer
) -> None:
    problem = {"file": "task.yaml", "line": 7, "column": 3, "message": "is wrong", "hint": "mend"}
    server.tools["new_task"] = lambda _: {
        "id": "x",
        "folder": "/srv/x",
        "files": [],
        "live": False,
        "problems": [problem],
        "conditions": [],
    }
    said = dicode("task", "new", "x", "--source", "mine")
    assert said.code == 1
    assert said.out.splitlines() == ["task.yaml:7:3: is wrong", "  mend", "x is not in force"]


@pytest.mark.parametrize("sources", [[], [source()]])
def test_without_a_source_to_write_to_it_is_said(
    dicode: Dicode, server: FakeServer, sources: list[dict[str, Any]]
) -> None:
    server.tools["list_sources"] = lambda _: {"sources": sources}
    said = dicode("task", "new", "x")
    assert said.code == 2
    assert "no source can be written to" in said.err


def test_json_is_the_server_s_own_answer(dicode: Dicode, server: FakeServer) -> None:
    server.tools["switch_dev_mode"] = lambda _: source()
    assert '"dev_mode": false' in dicode("--json", "source", "dev", "src", "--disable").out

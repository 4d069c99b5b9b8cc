from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Dicode, FakeServer, Tool

ENDED: dict[str, Any] = {
    "run_id": "r1",
    "task": "hello",
    "status": "success",
    "duration_ms": 120,
    "return_value": {"n": 1},
    "logs_tail": [
        {"seq": 1, "ts": "2026-01-01T00:00:00Z", "level": "info", "message": "working on it"}
    ],
}
STARTED: dict[str, Any] = {"run_id": "r1", "task": "hello", "status": "queued", "logs_tail": []}


def serve(server: FakeServer, ended: dict[str, Any] | None = None) -> None:
    answer: Tool = lambda _: ended or ENDED  # noqa: E731
    server.tools["run_task"] = lambda _: STARTED
    server.tools["get_run"] = answer


def run_arguments(server: FakeServer) -> dict[str, Any]:
    return next(arguments for name, arguments in server.calls if name == "run_task")


def test_the_value_goes_to_stdout_and_all_else_beside_it(
    dicode: Dicode, server: FakeServer
) -> None:
    serve(server)
    said = dicode("run", "hello")
    assert said.code == 0
    assert json.loads(said.out) == {"n": 1}
    assert "working on it" in said.err
    assert "run r1 of hello: success after 120 ms" in said.err


def test_a_text_value_is_printed_as_text(dicode: Dicode, server: FakeServer) -> None:
    serve(server, ENDED | {"return_value": "two\nlines"})
    assert dicode("run", "hello").out == "two\nlines\n"


def test_a_failure_shows_place_log_and_the_next_command(dicode: Dicode, server: FakeServer) -> None:
    error = {
        "code": "script_error",
        "message": "ValueError: boom",
        "file": "task.py",
        "line": 7,
        "hint": "look at line 7",
    }
    failed = {k: v for k, v in ENDED.items() if k != "return_value"}
    serve(server, failed | {"status": "failure", "reason": "script_error", "error": error})
    said = dicode("run", "hello")
    assert (said.code, said.out) == (1, "")
    lines = said.err.splitlines()
    assert "working on it" in lines[0]
    assert lines[1:] == [
        "run r1 of hello: failure after 120 ms (script_error)",
        "  task.py:7 ValueError: boom",
        "  look at line 7",
        "next: dicode logs r1 · dicode get hello",
    ]


def test_params_may_stand_anywhere_and_stay_text(dicode: Dicode, server: FakeServer) -> None:
    serve(server)
    said = dicode(
        *("run", "--json", "hello", "a=1", "--wait", "9", "b=x=y", "--param-json", "c=[1]", "d=")
    )
    assert said.code == 0
    assert run_arguments(server) == {
        "id": "hello",
        "params": {"a": "1", "b": "x=y", "c": [1], "d": ""},
        "wait_seconds": 0,
    }


def test_input_is_json_when_it_is_json_and_text_otherwise(
    dicode: Dicode, server: FakeServer, tmp_path: Path
) -> None:
    serve(server)
    (tmp_path / "a.json").write_text('{"k": [1, 2]}')
    (tmp_path / "b.txt").write_text("plain {words")
    assert dicode("run", "hello", "--input", "a.json").code == 0
    assert dicode("run", "hello", "--input", "b.txt").code == 0
    inputs = [a["input"] for name, a in server.calls if name == "run_task"]
    assert inputs == [{"k": [1, 2]}, "plain {words"]
    (tmp_path / "bad.json").write_text("{")
    bad = dicode("run", "hello", "--input", "bad.json")
    assert bad.code == 2
    assert "not valid JSON" in bad.err


def test_json_gives_the_run_as_the_server_showed_it(dicode: Dicode, server: FakeServer) -> None:
    serve(server)
    said = dicode("run", "hello", "--json")
    assert json.loads(said.out) == ENDED
    assert said.err == ""


def test_no_wait_prints_the_run_id(dicode: Dicode, server: FakeServer) -> None:
    serve(server)
    said = dicode("run", "hello", "--no-wait")
    assert (said.code, said.out) == (0, "r1\n")
    assert [name for name, _ in server.calls] == ["run_task"]


def test_waiting_goes_on_until_the_end(dicode: Dicode, server: FakeServer) -> None:
    states = [{**STARTED, "status": "running"}] * 3 + [ENDED]
    server.tools["run_task"] = lambda _: STARTED
    server.tools["get_run"] = lambda _: states.pop(0)
    assert dicode("run", "hello").code == 0
    assert states == []


def test_a_wait_that_is_too_short_says_that_the_run_goes_on(
    dicode: Dicode, server: FakeServer
) -> None:
    serve(server, {**STARTED, "status": "running"})
    said = dicode("run", "hello", "--wait", "0")
    assert (said.code, said.out) == (1, "")
    assert "it goes on" in said.err
    assert "dicode logs -f r1" in said.err


def test_follow_shows_lines_once_and_then_the_value(dicode: Dicode, server: FakeServer) -> None:
    serve(server)
    looks: list[int] = []

    def logs(arguments: dict[str, Any]) -> dict[str, Any]:
        looks.append(1)
        lines: list[Any] = [] if arguments.get("after") else ENDED["logs_tail"]
        return {"status": "success" if len(looks) > 2 else "running", "lines": lines}

    server.tools["get_logs"] = logs
    said = dicode("run", "hello", "--follow")
    assert said.err.count("working on it") == 1
    assert json.loads(said.out) == {"n": 1}


def test_a_value_too_long_for_a_tools_answer_is_fetched_whole(
    dicode: Dicode, server: FakeServer
) -> None:
    long = "x" * 100_000
    cut = {k: v for k, v in ENDED.items() if k != "return_value"}
    serve(server, cut | {"return_value_truncated": True})
    server.resources["dicode://runs/r1"] = {**ENDED, "return_value": long}
    assert dicode("run", "hello").out == long + "\n"


def test_help_of_a_task_shows_its_params(dicode: Dicode, server: FakeServer) -> None:
    spec = {
        "params": {
            "city": {"type": "string", "required": True, "description": "where"},
            "days": {"type": "number", "default": 3},
            "unit": {"enum": ["c", "f"], "default": "c"},
        }
    }
    server.tools["get_task"] = lambda _: {"id": "hello", "description": "The weather", "spec": spec}
    said = dicode("run", "hello", "--help")
    assert said.code == 0
    assert "The weather" in said.out
    rows = {line.split()[0]: line for line in said.out.splitlines() if line.startswith("  ")}
    assert "(required)" in rows["city"]
    assert "3" in rows["days"]
    assert "one of c, f" in rows["unit"]
    general = dicode("run", "--help")
    assert "--no-wait" in general.out


@pytest.mark.parametrize(
    "words", [("run", "hello"), ("run", "hello", "--follow"), ("logs", "r1", "-f")]
)
def test_ctrl_c_leaves_the_run_alive_and_says_its_id(
    server: FakeServer, words: tuple[str, ...]
) -> None:
    waiting, released = threading.Event(), threading.Event()

    def wait(_: dict[str, Any]) -> dict[str, Any]:
        waiting.set()
        released.wait(20)
        return ENDED

    server.tools["run_task"] = lambda _: STARTED
    server.tools["get_run"] = server.tools["get_logs"] = wait
    command = [sys.executable, "-m", "dicode_mcp.cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert waiting.wait(20)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    released.set()
    assert process.returncode == 130
    assert out == b""
    assert b"run r1 goes on" in err
    assert b"Traceback" not in err
    assert "cancel_run" not in [name for name, _ in server.calls]

"""Asking with the real command and server: at a terminal, and through kill -9 of the server."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from crash_loop import Server, processes_of_tasks

pytestmark = pytest.mark.slow

DEADLINE_S = 30
MANIFEST = "name: Ask\nruntime: python\ntrigger: {manual: true}\n"
FORM = """
from dicode_sdk import dicode
result = dicode.ask({"type": "object", "properties": {
    "deploy": {"type": "boolean", "title": "Deploy <now>?"},
    "where": {"type": "string", "enum": ["eu", "us"], "default": "eu"},
    "count": {"type": "integer", "minimum": 1, "maximum": 9},
    "note": {"type": "string"},
}, "required": ["deploy", "count"]}, "Deploy 1.4?\\x1b[31m")
"""
TASKS = {
    "form": FORM,
    "name": "from dicode_sdk import dicode\nresult = dicode.ask(str, 'Who?', timeout=600)\n",
    "brief": "from dicode_sdk import dicode\nresult = dicode.ask(str, 'Who?', timeout=3)\n",
    "lingers": (
        "import time\nfrom dicode_sdk import dicode\n"
        "try:\n    dicode.ask(bool, 'Go?')\nfinally:\n    print('asked', flush=True)\n"
        "    time.sleep(60)\n"
    ),
}


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    made = Server(tmp_path)
    for name, script in TASKS.items():
        folder = made.tasks / name
        folder.mkdir(parents=True)
        (folder / "task.yaml").write_text(MANIFEST)
        (folder / "task.py").write_text(script)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def asked(server: Server, task: str) -> str:
    run = server.call("run_task", {"id": f"{task}", "wait_seconds": 20})
    assert run["status"] == "waiting", run
    return run["run_id"]


def ended(server: Server, run_id: str) -> dict[str, Any]:
    return server.call("get_run", {"run_id": run_id, "wait_seconds": 15})


def command(server: Server, *words: str) -> list[str]:
    return [sys.executable, "-m", "dicode_mcp.cli.main", "--data-dir", str(server.data), *words]


def dicode(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(server, *words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def at_terminal(server: Server, lines: list[str], *words: str) -> tuple[int, str, str]:
    """Run a command at a terminal and type a line at each prompt.

    Gives its exit code, what it printed as its result, and what the terminal showed.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(server, *words), stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True
    )
    os.close(theirs)
    shown, left = bytearray(), list(lines)

    def type_at_prompts() -> None:
        with suppress(OSError):
            while data := os.read(ours, 4096):
                shown.extend(data)
                if shown.endswith(b": ") and left:
                    os.write(ours, left.pop(0).encode() + b"\n")

    reader = threading.Thread(target=type_at_prompts, daemon=True)
    reader.start()
    out, _ = process.communicate(timeout=60)
    reader.join(5)
    os.close(ours)
    return process.returncode, out, shown.decode()


def test_the_command_line_answers_by_arguments(server: Server) -> None:
    run_id = asked(server, "form")
    said = dicode(server, "answer", run_id)
    assert said.returncode == 2
    assert "deploy=…" in said.stderr
    said = dicode(server, "answer", run_id, "deploy=maybe", "count=x")
    assert said.returncode == 1
    assert "deploy must be true or false" in said.stderr
    said = dicode(server, "answer", run_id, "deploy=yes", "count=2", "--follow")
    assert said.returncode == 0, said.stderr
    assert ended(server, run_id)["return_value"] == {"deploy": True, "where": "eu", "count": 2}
    said = dicode(server, "answer", run_id, "deploy=yes", "count=2")
    assert said.returncode == 1
    assert "answered already, by local via cli" in said.stderr


def test_one_value_needs_no_name_and_a_question_can_be_declined(server: Server) -> None:
    run_id = asked(server, "name")
    said = dicode(server, "answer", run_id, "Ann Lee")
    assert said.returncode == 0, said.stderr
    assert ended(server, run_id)["return_value"] == "Ann Lee"
    run_id = asked(server, "name")
    assert dicode(server, "answer", run_id, "--decline", "-f").returncode == 1
    assert ended(server, run_id)["reason"] == "declined"


def test_the_command_line_asks_at_a_terminal(server: Server) -> None:
    run_id = asked(server, "form")
    typed = ["perhaps", "yes", "", "12", "4", ""]
    code, _, shown = at_terminal(server, typed, "answer", run_id, "-f")
    assert code == 0, shown
    assert "Deploy <now>? (yes / no): " in shown
    assert "where (eu / us) [eu]: " in shown
    assert "count must be at most 9" in shown
    assert "\x1b[31m" not in shown
    assert ended(server, run_id)["return_value"] == {"deploy": True, "where": "eu", "count": 4}


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_running_a_task_at_a_terminal_asks_what_it_asks(
    server: Server, follow: tuple[str, ...]
) -> None:
    code, out, shown = at_terminal(server, ["Ann"], "run", "name", *follow)
    assert (code, out.strip()) == (0, "Ann"), shown


def test_running_a_task_where_nobody_is_says_how_to_answer(server: Server) -> None:
    said = dicode(server, "run", "name", "--wait", "3")
    assert said.returncode == 1
    assert "the run asks: Who?" in said.stderr
    assert "answer with: dicode answer " in said.stderr


def test_kill_9_while_a_run_waits_loses_neither_question_nor_answer(server: Server) -> None:
    run_id = asked(server, "name")
    server.kill()
    server.start()
    shown = ended_or_waiting(server, run_id)
    assert (shown["status"], shown["question"]["message"]) == ("waiting", "Who?")
    server.call("answer_run", {"run_id": run_id, "answer": "Ann", "wait_seconds": 0})
    server.kill()
    server.start()
    run = ended(server, run_id)
    # Queued when the server died: it goes on. Running by then: it is lost, and never waits again.
    assert run["status"] in ("success", "lost"), run
    if run["status"] == "success":
        assert run["return_value"] == "Ann"
    assert run["answers"][0]["answer"] == {"answer": "Ann"}


def test_kill_9_while_a_run_waits_does_not_stop_its_deadline(server: Server) -> None:
    run_id = asked(server, "brief")
    server.kill()
    server.start()
    run = ended(server, run_id)
    assert (run["status"], run["reason"]) == ("timeout", "answer_timeout")


def test_kill_9_between_a_question_and_its_end_leaves_no_half_waiting_run(server: Server) -> None:
    run_id = server.call("run_task", {"id": "lingers", "wait_seconds": 0})["run_id"]
    deadline = time.monotonic() + DEADLINE_S
    while not server.call("get_logs", {"run_id": run_id})["lines"]:
        assert time.monotonic() < deadline
    server.kill()
    server.start()
    run = ended_or_waiting(server, run_id)
    assert (run["status"], run["reason"]) == ("lost", "server_crashed")
    assert "question" not in run
    assert server.call("get_runs", {"status": "waiting"})["runs"] == []
    assert processes_of_tasks(server.data) == {}


def ended_or_waiting(server: Server, run_id: str) -> dict[str, Any]:
    return server.call("get_run", {"run_id": run_id})

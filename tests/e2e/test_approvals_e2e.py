"""Approving at a terminal: the real command and server, a pseudo-terminal with somebody there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from crash_loop import Server

from dicode_mcp.testing.repositories import Remote

DEADLINE_S = 30
FILES = {
    "hello/task.yaml": "name: Hello\nruntime: python\ntrigger: {manual: true}\n",
    "hello/task.py": "def main():\n    return 'one'\n",
}


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote(tmp_path / "remote")
    made.commit(FILES)
    return made


@pytest.fixture
def server(tmp_path: Path, remote: Remote) -> Generator[Server]:
    url = remote.folder.as_uri()
    config = f"""\
server: {{allow_local_git: true}}
sources: [{{name: src, type: git, url: '{url}', trust: review}}]
"""
    server = Server(tmp_path, config=config)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def command(server: Server, *words: str) -> list[str]:
    return [sys.executable, "-m", "dicode_mcp.cli.main", "--data-dir", str(server.data), *words]


def test_a_human_approves_at_a_terminal(server: Server) -> None:
    digest = server.call("get_task", {"id": "src/hello"})["pending"]["hash"]
    code, out, shown = at_terminal(server, "n", "task", "approve", "src/hello")
    assert (code, out) == (1, ""), shown
    assert digest in shown
    assert "+    return 'one'" in shown
    assert "Approve? [y/N]" in shown
    code, out, shown = at_terminal(server, "y", "task", "approve", "src/hello")
    assert (code, out) == (
        0,
        f"src/hello is approved: version {digest[:12]} is in force\n",
    ), shown
    run = server.call("run_task", {"id": "src/hello", "wait_seconds": 30})
    assert run["return_value"] == "one"


def test_a_version_too_long_for_an_answer_is_shown_whole(server: Server, remote: Remote) -> None:
    code = "def main():\n    return 'one'\n" + "pass\n" * 20_000 + "evil = 1\n"
    padding = {f"hello/a{number:03}.txt": "padding\n" for number in range(231)}
    remote.commit({"hello/task.py": code, **padding})
    dicode(server, "source", "sync", "src")
    pending = server.call("get_task", {"id": "src/hello"})["pending"]
    assert pending["changes"]["truncated"]
    _, _, shown = at_terminal(server, "n", "task", "approve", "src/hello")
    assert "+evil = 1" in shown
    assert "added a230.txt" in shown
    assert shown.rstrip().splitlines()[-2].startswith("Approve? [y/N] ")


def test_a_version_too_long_for_a_terminal_says_what_was_not_shown(
    server: Server, remote: Remote
) -> None:
    remote.commit({"hello/a.txt": "x" * 99 + "\n" + "padding\n" * 2**20, "hello/z.txt": "end\n"})
    dicode(server, "source", "sync", "src")
    _, _, shown = at_terminal(server, "n", "task", "approve", "src/hello")
    assert "added z.txt" in shown
    assert "characters (about) in the differences of 1 files" in shown
    assert "Approve without having seen all? [y/N] " in shown


def test_nobody_at_a_terminal_is_no_approval(server: Server) -> None:
    words = command(server, "task", "approve", "src/hello")
    said = subprocess.run(words, input=b"y\n", capture_output=True, check=False)
    assert said.returncode == 2
    assert b"nobody is at this terminal" in said.stderr
    assert "pending" in server.call("get_task", {"id": "src/hello"})


def test_the_command_line_runs_what_is_approved_and_says_what_to_type(
    server: Server, remote: Remote
) -> None:
    said = dicode(server, "run", "src/hello")
    assert said.returncode == 1
    assert "dicode task approve src/hello" in said.stderr
    code, _, shown = at_terminal(server, "y", "task", "approve", "src/hello")
    assert code == 0, shown
    remote.commit({"hello/task.py": "def main():\n    return 'two'\n"})
    dicode(server, "source", "sync", "src")
    said = dicode(server, "run", "src/hello")
    assert (said.returncode, said.stdout) == (0, "one\n")
    assert "pending_approval (kept)" in dicode(server, "list").stdout


def dicode(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(server, *words), capture_output=True, text=True, check=False)


def at_terminal(server: Server, said: str, *words: str) -> tuple[int, str, str]:
    """Run a command at a terminal of its own and answer what it asks.

    Gives its exit code, what it printed as its result, and what the terminal showed.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(server, *words), stdin=theirs, stderr=theirs, stdout=subprocess.PIPE
    )
    os.close(theirs)
    shown = bytearray()

    def show() -> None:
        with suppress(OSError):
            while data := os.read(ours, 4096):
                shown.extend(data)
                if shown.endswith(b"[y/N] "):
                    os.write(ours, said.encode() + b"\n")

    reader = threading.Thread(target=show, daemon=True)
    reader.start()
    try:
        out, _ = process.communicate(timeout=DEADLINE_S)
        reader.join(DEADLINE_S)
    finally:
        process.kill()
        os.close(ours)
    return process.returncode, out.decode(), shown.decode().replace("\r\n", "\n")

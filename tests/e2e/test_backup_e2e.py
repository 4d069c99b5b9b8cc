"""Backup and restore with real processes: from a running server to an empty machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CANARY = "canary-2b81f0"
TASK = """name: Told
runtime: python
trigger: {manual: true}
permissions: {env: [{name: TOKEN, secret: TOKEN}]}
"""
SCRIPT = "import hashlib\nresult = hashlib.sha256(env.get('TOKEN').encode()).hexdigest()\n"


class Machine:
    """A home of its own, and the commands typed there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / ".dicode"
        home.mkdir()

    def dicode(self, *words: str, given: str = "", code: int = 0) -> str:
        env = {key: value for key, value in os.environ.items() if not key.startswith("DICODE_")}
        done = subprocess.run(
            [sys.executable, "-m", "dicode_mcp.cli.main", *words],
            cwd=self.home,
            env={**env, "HOME": str(self.home)},
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def told(self, *words: str) -> Any:
        return json.loads(self.dicode(*words, "--json"))

    @contextmanager
    def served(self) -> Generator[None]:
        source = str(self.home / "tasks")
        self.dicode("serve", "--detach", "--port", "0", "--source", source)
        try:
            yield
        finally:
            self.dicode("stop")


@pytest.fixture
def first(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "first")
    folder = machine.home / "tasks" / "told"
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(TASK)
    (folder / "task.py").write_text(SCRIPT)
    return machine


def test_a_server_goes_on_elsewhere_from_its_backup(first: Machine, tmp_path: Path) -> None:
    backup, key = str(tmp_path / "b.tar.gz"), str(tmp_path / "b.key")
    with first.served():
        first.dicode("secrets", "set", "TOKEN", given=CANARY)
        before = first.told("run", "told")
        first.dicode("backup", backup, "--key", key, "--logs")
        first.dicode("restore", backup, "--force", code=2)
    for file in (backup, key):
        assert os.stat(file).st_mode & 0o777 == 0o600
    second = Machine(tmp_path / "second")
    os.symlink(first.home / "tasks", second.home / "tasks")
    out = second.dicode("restore", backup, "--key", key)
    assert "is as it was at" in out
    assert "revoked since then are active again: dicode keys list" in out
    second.dicode("restore", backup, code=2)
    with second.served():
        (run,) = second.told("runs", "told")["runs"]
        assert run["run_id"] == before["run_id"]
        assert second.told("run", "told")["return_value"] == before["return_value"]
        assert "intact" in second.dicode("audit", "--verify")
        exported = tmp_path / "audit.jsonl"
        second.dicode("audit", "--export", str(exported))
        entries = [json.loads(line) for line in exported.read_text().splitlines()]
        assert [e["id"] for e in entries] == sorted(e["id"] for e in entries)
        assert {"secrets_set", "run_task"} <= {e["action"] for e in entries}
        assert CANARY not in exported.read_text()
        assert exported.stat().st_mode & 0o777 == 0o600
        assert "secrets_set" in second.dicode("audit", "--action", "secrets_set")


def test_without_its_key_the_server_stops_and_says_so(first: Machine, tmp_path: Path) -> None:
    with first.served():
        first.dicode("secrets", "set", "TOKEN", given=CANARY)
    backup = str(tmp_path / "b.tar.gz")
    assert "without that the secrets are lost" in first.dicode("backup", backup)
    second = Machine(tmp_path / "second")
    assert "will not start without the master key" in second.dicode("restore", backup)
    out = second.dicode("serve", "--detach", "--port", "0", code=2)
    assert "master key" in out
    assert not (second.data / "master.key").exists()
    os.makedirs(second.data, exist_ok=True)
    key = (first.data / "master.key").read_text()
    (second.data / "master.key").write_text(key)
    (second.data / "master.key").chmod(0o600)
    (second.home / "tasks").mkdir()
    with second.served():
        assert "TOKEN" in second.dicode("secrets", "list")


def test_a_tampered_log_is_told_with_the_place_and_exit_code_one(first: Machine) -> None:
    import sqlite3

    with first.served():
        first.dicode("secrets", "set", "TOKEN", given=CANARY)
        first.dicode("run", "told")
    with sqlite3.connect(first.data / "state.db") as raw:
        raw.execute("UPDATE audit SET actor = 'nobody' WHERE action = 'secrets_set'")
    raw.close()
    with first.served():
        out = first.dicode("audit", "--verify", code=1)
    assert "BROKEN" in out
    assert "secrets_set" in out


def test_a_server_that_is_stopped_while_backing_up_leaves_a_whole_backup(
    first: Machine, tmp_path: Path
) -> None:
    with first.served():
        first.dicode("secrets", "set", "TOKEN", given=CANARY)
        pid = first.told("status")["pid"]
        command = [sys.executable, "-m", "dicode_mcp.backup", "backup", str(tmp_path / "b")]
        saving = subprocess.Popen([*command, "--data-dir", str(first.data)])
        os.kill(pid, signal.SIGKILL)
        assert saving.wait(60) == 0
        first.dicode("serve", "--detach", "--port", "0")
    second = Machine(tmp_path / "second")
    second.dicode("restore", str(tmp_path / "b"), "--key", str(first.data / "master.key"))

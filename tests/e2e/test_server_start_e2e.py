"""How a server that cannot start says so: one clear line and exit code 2."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def daemon(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("DICODE_")}
    return subprocess.run(
        [sys.executable, "-m", "dicode_mcp.daemon", *words],
        cwd=cwd,
        env={**env, "HOME": str(cwd), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("dicode: ")
    assert "Traceback" not in done.stderr
    return last


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = daemon("--data-dir", "data", "--port", str(port), cwd=tmp_path)
    assert f"port {port}" in one_line(done)


def test_a_bad_config_names_file_line_and_key(tmp_path: Path) -> None:
    (tmp_path / "dicode.yaml").write_text("data_dir: ./data\nservr: {port: 1}\n")
    line = one_line(daemon(cwd=tmp_path))
    assert "dicode.yaml:2" in line
    assert "did you mean 'server'" in line


def test_a_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "other.yaml" in one_line(daemon("--config", "other.yaml", cwd=tmp_path))


def test_a_data_dir_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = one_line(daemon("--data-dir", "file/data", "--no-http", cwd=tmp_path))
    assert "file/data" in line


def test_a_data_dir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    # Not even root may make a folder there.
    assert "/proc/dicode" in one_line(daemon("--data-dir", "/proc/dicode", cwd=tmp_path))


def test_an_address_others_can_reach_is_refused_without_keys(tmp_path: Path) -> None:
    line = one_line(daemon("--data-dir", "data", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path))
    assert "keys" in line


def test_a_second_server_names_the_first_ones_pid(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "dicode_mcp.daemon", "--data-dir", str(tmp_path), "--no-http"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "serves" in line:
                break
        second = daemon("--data-dir", str(tmp_path), "--no-http", cwd=tmp_path)
        assert str(first.pid) in one_line(second)
        first.send_signal(signal.SIGTERM)
        first.stderr.read()
        assert first.wait(timeout=30) == 0

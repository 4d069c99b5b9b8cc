from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Dicode

from dicode_mcp.cli import process
from dicode_mcp.cli.places import Places
from dicode_mcp.errors import Code, DicodeError

FAKE = Path(__file__).with_name("fake_daemon.py")


@pytest.fixture
def places(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """A data dir whose server is the fake daemon; ends what still runs."""

    def command(places: Places, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, str(FAKE), "--data-dir", places.data_dir, *arguments]

    monkeypatch.setattr(process, "daemon_command", command)
    made = Places(str(data_dir))
    yield made
    found = process.holder(made)
    if found is not None and found.pid != os.getpid():
        os.kill(found.pid, signal.SIGKILL)


def starts(places: Places) -> list[dict[str, Any]]:
    text = Path(places.data_dir, "starts").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_serve_detach_returns_when_the_server_answers(dicode: Dicode, places: Places) -> None:
    said = dicode("serve", "--detach", "--port", "0", "--source", "mine", "--json")
    assert said.code == 0
    found = process.holder(places)
    assert found is not None
    assert json.loads(said.out)["pid"] == found.pid
    expected = ["--port", "0", "--source", str(Path.cwd() / "mine")]
    assert starts(places)[0]["words"][2:] == expected


def test_a_second_serve_names_the_first_ones_pid(dicode: Dicode, places: Places) -> None:
    dicode("serve", "-d")
    found = process.holder(places)
    assert found is not None
    for words in (("serve",), ("daemon", "--detach")):
        said = dicode(*words)
        assert said.code == 2
        assert f"pid {found.pid}" in said.err


def test_two_clients_that_start_at_once_share_one_server(places: Places) -> None:
    pids: list[int] = []

    def start() -> None:
        pids.append(process.start_detached(places, process.Start((), os.getcwd())).pid)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(pids) == 3
    assert len(set(pids)) == 1
    assert len(starts(places)) == 1


def test_a_server_that_cannot_start_is_reported_by_its_last_line(
    dicode: Dicode, places: Places
) -> None:
    Path(places.log).write_text("an old line\n")
    said = dicode("serve", "-d", "--port", "1")
    assert said.code == 2
    assert "port 1 is taken by another program; choose another" in said.err
    assert "an old line" not in said.err
    assert places.log in said.err


def test_stop_waits_until_the_server_is_gone(dicode: Dicode, places: Places) -> None:
    dicode("serve", "-d")
    said = dicode("stop")
    assert said.code == 0
    assert "has ended" in said.out
    assert process.holder(places) is None
    again = dicode("stop")
    assert again.code == 0
    assert "no server was running" in again.err


def test_a_server_that_does_not_end_is_said_to_go_on(dicode: Dicode, places: Places) -> None:
    dicode("serve", "-d", "--log-level", "debug")
    said = dicode("stop", "--timeout", "0.2")
    found = process.holder(places)
    assert found is not None
    assert said.code == 1
    assert f"kill -9 {found.pid}" in said.err


def test_restart_starts_with_the_same_arguments_in_the_same_folder(
    dicode: Dicode, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dicode("serve", "-d", "--port", "7", "--no-http")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = dicode("restart")
    assert said.code == 0
    first, second = starts(places)
    assert second == first
    dicode("restart", "--port", "8")
    assert starts(places)[2]["words"][2:] == ["--port", "8"]
    assert starts(places)[2]["cwd"] == str(tmp_path / "elsewhere")


def test_restart_without_a_server_starts_one(dicode: Dicode, places: Places) -> None:
    assert dicode("restart").code == 0
    assert process.holder(places) is not None


def test_a_lock_file_of_a_killed_server_counts_as_none(places: Places) -> None:
    Path(places.lock).write_text(json.dumps({"pid": os.getpid(), "version": "0"}))
    assert process.holder(places) is None
    assert process.stop(places) is None


def test_stop_never_signals_a_process_that_does_not_hold_the_lock(places: Places) -> None:
    with open(places.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(json.dumps({"pid": os.getppid(), "version": "0"}))
        lock.flush()
        with pytest.raises(DicodeError) as caught:
            process.stop(places)
    assert caught.value.code is Code.CONFLICT
    assert "another container" in (caught.value.hint or "")


def test_a_data_dir_that_cannot_be_made_is_a_config_error(dicode: Dicode, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = dicode("serve", "-d", "--data-dir", str(tmp_path / "file" / "below"))
    assert said.code == 2
    assert "--data-dir" in said.err


def test_the_servers_log_is_private_and_set_aside_when_large(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_LIMIT", 10)
    Path(places.log).write_text("a line of more than ten bytes\n")
    process.start_detached(places, process.Start((), os.getcwd()))
    assert Path(places.log + ".1").read_text() == "a line of more than ten bytes\n"
    assert os.stat(places.log).st_mode & 0o777 == 0o600


def test_the_servers_command_keeps_the_working_directory_off_its_path() -> None:
    command = process.daemon_command(Places("/d", "/c.yaml"), ["--no-http"])
    assert command[1:4] == ["-P", "-m", "dicode_mcp.daemon"]
    assert command[4:] == ["--data-dir", "/d", "--config", "/c.yaml", "--no-http"]

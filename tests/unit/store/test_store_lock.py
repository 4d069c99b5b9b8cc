"""One server per data dir."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.store.lock import LOCK_NAME, DataDirLock, LockInfo, read_lock_info

INFO = LockInfo(4242, "1.2.3", 1_700_000_000_000, "127.0.0.1", 8910, "/run/dicode.sock")


def test_a_second_server_is_refused_and_told_the_pid_of_the_first(tmp_path: Path) -> None:
    with DataDirLock(tmp_path) as lock:
        lock.publish(INFO)
        with pytest.raises(DicodeError) as caught, DataDirLock(tmp_path):
            pass
    assert caught.value.code is Code.ALREADY_RUNNING
    assert "4242" in caught.value.message
    assert caught.value.data["pid"] == 4242


def test_a_server_that_said_nothing_yet_still_holds_the_folder(tmp_path: Path) -> None:
    with DataDirLock(tmp_path):
        with pytest.raises(DicodeError) as caught, DataDirLock(tmp_path):
            pass
        assert caught.value.data["pid"] is None
        assert read_lock_info(tmp_path) == LockInfo(0, "", 0)


def test_what_the_holder_says_can_be_read_and_changed(tmp_path: Path) -> None:
    with DataDirLock(tmp_path) as lock:
        lock.publish(INFO)
        assert read_lock_info(tmp_path) == INFO
        short = LockInfo(7, "1", 1)
        lock.publish(short)
        assert read_lock_info(tmp_path) == short
        assert json.loads((tmp_path / LOCK_NAME).read_text())["port"] is None


def test_nobody_holds_a_folder_that_was_left(tmp_path: Path) -> None:
    assert read_lock_info(tmp_path) is None
    with DataDirLock(tmp_path) as lock:
        lock.publish(INFO)
    assert read_lock_info(tmp_path) is None
    with DataDirLock(tmp_path):
        pass


def test_the_lock_ends_with_a_killed_holder_though_its_words_stay(tmp_path: Path) -> None:
    program = """
import pathlib, sys
from dicode_mcp.store.lock import DataDirLock, LockInfo
lock = DataDirLock(pathlib.Path(sys.argv[1])).__enter__()
lock.publish(LockInfo(1, "x", 1))
print("held", flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert read_lock_info(tmp_path) == LockInfo(1, "x", 1)
        holder.kill()
    assert (tmp_path / LOCK_NAME).read_text()
    assert read_lock_info(tmp_path) is None
    with DataDirLock(tmp_path):
        pass


def test_a_look_at_the_lock_does_not_stop_a_server(tmp_path: Path) -> None:
    program = """
import pathlib, sys
from dicode_mcp.store.lock import read_lock_info
print("looking", flush=True)
while True:
    read_lock_info(pathlib.Path(sys.argv[1]))
"""
    watcher = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    )
    with watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        for _ in range(20):
            with DataDirLock(tmp_path):
                pass
        watcher.kill()


def test_a_new_data_dir_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    with DataDirLock(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / LOCK_NAME).stat().st_mode & 0o777 == 0o600


def test_a_data_dir_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DicodeError) as caught, DataDirLock(tmp_path / "file" / "data"):
        pass
    assert caught.value.code is Code.DATA_DIR
    assert str(tmp_path / "file" / "data") in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_data_dir_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DicodeError) as caught, DataDirLock(tmp_path):
            pass
        assert caught.value.code is Code.DATA_DIR
    finally:
        tmp_path.chmod(0o700)


def test_a_lock_file_full_of_rubbish_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(b"\xff{" * 10_000)
    assert read_lock_info(tmp_path) is None
    with DataDirLock(tmp_path) as lock:
        os.pwrite(lock._fd, b'["x"]', 0)  # pyright: ignore[reportPrivateUsage]
        assert read_lock_info(tmp_path) == LockInfo(0, "", 0)

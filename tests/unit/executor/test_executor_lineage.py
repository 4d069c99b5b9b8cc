"""Whose work a process is: from made-up process tables, and from real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dicode_mcp.executor.lineage import Lineage, Origin, descendants, is_foreign, lineage

SERVER = 50

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def process(proc: Path, pid: int, parent: int, *variables: str) -> None:
    """Write what /proc shows of a process."""
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "environ").write_bytes("\0".join([*variables, ""]).encode())
    fields = ["S", str(parent), "1", "1", *["0"] * 15, str(pid), "0"]
    (folder / "stat").write_text(f"{pid} (a) b) c) {' '.join(fields)}\n")


def origin(proc: Path, pid: int, *foreign: int) -> Origin:
    """Judge, where ``foreign`` are another user's."""
    return lineage(pid, SERVER, str(proc), is_foreign=lambda pid: pid in foreign).origin


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Make a machine with a first process and a server."""
    process(tmp_path, 1, 0)
    process(tmp_path, SERVER, 1, "DICODE_RUN_ID=ofanouterserver")
    return tmp_path


def test_a_shell_of_the_user_is_a_client(proc: Path) -> None:
    process(proc, 8, 1, "HOME=/root")
    process(proc, 9, 8, "PATH=/bin", "XDICODE_RUN_ID=1")
    assert origin(proc, 9) is Origin.CLIENT


def test_what_the_server_started_is_a_task_whatever_its_environment(proc: Path) -> None:
    process(proc, 9, SERVER)
    process(proc, 10, 9)
    process(proc, 11, 10)
    assert [origin(proc, pid) for pid in (9, 10, 11)] == [Origin.TASK] * 3


def test_the_server_itself_is_a_client(proc: Path) -> None:
    assert origin(proc, SERVER) is Origin.CLIENT


def test_a_task_of_another_server_is_known_by_its_mark_and_so_is_what_it_starts(proc: Path) -> None:
    process(proc, 8, 1, "PATH=/bin", "DICODE_RUN_ID=r1")
    process(proc, 9, 8)
    assert lineage(8, SERVER, str(proc)) == Lineage(Origin.TASK, 8, "r1")
    assert lineage(9, SERVER, str(proc)) == Lineage(Origin.TASK, 9, "r1")


@pytest.mark.parametrize("mark", ["", "r1\n[12:00:00] all is well", "é", "x" * 99])
def test_a_mark_that_is_no_run_id_marks_and_is_not_repeated(proc: Path, mark: str) -> None:
    process(proc, 9, 1, f"DICODE_RUN_ID={mark}")
    assert lineage(9, SERVER, str(proc)) == Lineage(Origin.TASK, 9, "unknown")


def test_a_process_that_cannot_be_looked_at_is_of_unknown_origin(proc: Path) -> None:
    process(proc, 8, 1)
    (proc / "8" / "environ").unlink()
    assert origin(proc, 8) is Origin.UNKNOWN
    assert origin(proc, 9) is Origin.UNKNOWN
    assert origin(proc, 0) is Origin.UNKNOWN


def test_below_the_server_nothing_need_be_readable(proc: Path) -> None:
    process(proc, 8, SERVER)
    process(proc, 9, 8)
    (proc / "8" / "environ").unlink()
    (proc / "9" / "environ").unlink()
    assert origin(proc, 9) is Origin.TASK


def test_another_users_process_in_between_hides_nobody(proc: Path) -> None:
    for number, parent in ((8, 1), (18, SERVER)):
        process(proc, number, parent)
        (proc / str(number) / "environ").unlink()
        process(proc, number + 1, number)
    assert (origin(proc, 9), origin(proc, 19)) == (Origin.CLIENT, Origin.TASK)


def test_a_line_that_cannot_be_followed_to_its_top_is_of_unknown_origin(proc: Path) -> None:
    process(proc, 9, 8)
    assert origin(proc, 9) is Origin.UNKNOWN
    process(proc, 8, 9)
    assert origin(proc, 9) is Origin.UNKNOWN


def test_where_other_users_processes_are_hidden_the_line_ends_with_them(proc: Path) -> None:
    process(proc, 9, 8)
    process(proc, 10, 9)
    assert origin(proc, 10, 8) is Origin.CLIENT
    assert origin(proc, 8, 8) is Origin.UNKNOWN
    process(proc, 11, 12, "DICODE_RUN_ID=r1")
    assert origin(proc, 11, 12) is Origin.TASK


@linux
def test_whose_a_process_is_needs_no_look_into_proc() -> None:
    assert not is_foreign(os.getpid())
    try:
        ours = os.geteuid() in (0, Path("/proc/1").stat().st_uid)
    except OSError:
        ours = False
    assert is_foreign(1) is not ours


def test_a_process_that_came_in_from_outside_a_container_has_its_top_there(proc: Path) -> None:
    process(proc, 9, 0)
    assert origin(proc, 9) is Origin.CLIENT


def test_everything_below_the_server_is_listed_and_nothing_else(proc: Path) -> None:
    process(proc, 8, 1)
    process(proc, 9, SERVER)
    process(proc, 10, 9)
    process(proc, 60, SERVER)
    assert sorted(descendants(SERVER, str(proc))) == [9, 10, 60]


@linux
def test_a_real_child_of_the_server_is_listed_and_a_task() -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()"], env={}, stdin=subprocess.PIPE
    ) as child:
        assert child.pid in descendants(os.getpid())
        assert lineage(child.pid, os.getpid()) == Lineage(Origin.TASK, child.pid)
        assert os.getppid() not in descendants(os.getpid())
        # From the view of a server that does not stand above it.
        assert lineage(child.pid, -1) == Lineage(Origin.CLIENT, child.pid)
        child.communicate(b"\n")


_CHILDLESS = """
import os
from dicode_mcp.executor import lineage
def read(*_): raise SystemExit("looked at the machine's processes")
lineage.all_pids = read
assert lineage.descendants(os.getpid()) == []
child = os.fork()
if child == 0:
    os._exit(0)
try:
    lineage.descendants(os.getpid())
except SystemExit:
    print(os.waitid(os.P_PID, child, os.WEXITED).si_pid == child)
"""


@linux
def test_a_server_without_children_looks_at_nothing_and_a_dead_one_is_left_to_its_owner() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILDLESS], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("True\n", "")

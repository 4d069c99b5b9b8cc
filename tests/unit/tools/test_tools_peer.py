"""Who may use the socket: the own user, and no task, whatever stands between."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.tools.peer import Peer, read_peer, require_trusted

UID, SERVER = 1000, 50


def process(proc: Path, pid: int, parent: int, *variables: str) -> None:
    """Write what /proc shows of a process."""
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "environ").write_bytes("\0".join([*variables, ""]).encode())
    (folder / "stat").write_text(f"{pid} (a) b) c) S {parent} 1 1 0")


def refused(proc: Path, peer: Peer) -> str:
    """Check that a peer is refused; give the words."""
    with pytest.raises(DicodeError) as raised:
        require_trusted(peer, own_uid=UID, own_pid=SERVER, proc=proc)
    assert raised.value.code is Code.FORBIDDEN
    return raised.value.message


def test_another_user_is_refused(tmp_path: Path) -> None:
    process(tmp_path, 9, 1)
    assert "only the user" in refused(tmp_path, Peer(UID + 1, 9))
    assert "only the user" in refused(tmp_path, Peer(0, 9))


def test_a_shell_of_the_own_user_is_trusted(tmp_path: Path) -> None:
    process(tmp_path, 9, 8, "PATH=/bin", "XDICODE_RUN_ID=1")
    process(tmp_path, 8, 1, "HOME=/root")
    require_trusted(Peer(UID, 9), own_uid=UID, own_pid=SERVER, proc=tmp_path)


def test_a_task_and_what_it_starts_is_refused(tmp_path: Path) -> None:
    process(tmp_path, SERVER, 1, "DICODE_RUN_ID=of-an-outer-server")
    process(tmp_path, 7, SERVER, "PATH=/bin", "DICODE_RUN_ID=r1")
    process(tmp_path, 8, 7)
    process(tmp_path, 9, 8)
    assert "task" in refused(tmp_path, Peer(UID, 7))
    assert "task" in refused(tmp_path, Peer(UID, 9))


def test_what_the_server_started_itself_is_no_task(tmp_path: Path) -> None:
    process(tmp_path, SERVER, 1, "DICODE_RUN_ID=of-an-outer-server")
    process(tmp_path, 9, SERVER)
    require_trusted(Peer(UID, 9), own_uid=UID, own_pid=SERVER, proc=tmp_path)
    require_trusted(Peer(UID, SERVER), own_uid=UID, own_pid=SERVER, proc=tmp_path)


def test_a_peer_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    assert "task" in refused(tmp_path, Peer(UID, 9))
    assert "task" in refused(tmp_path, Peer(UID, 0))


def test_a_circle_of_parents_is_refused(tmp_path: Path) -> None:
    process(tmp_path, 8, 9)
    process(tmp_path, 9, 8)
    assert "task" in refused(tmp_path, Peer(UID, 9))


def test_above_the_own_user_nothing_is_asked(tmp_path: Path) -> None:
    process(tmp_path, 9, 8)
    require_trusted(Peer(UID, 9), own_uid=UID, own_pid=SERVER, proc=tmp_path)


def test_where_no_process_can_be_seen_the_user_decides(tmp_path: Path) -> None:
    require_trusted(Peer(UID, 9), own_uid=UID, own_pid=SERVER, proc=tmp_path / "none")
    require_trusted(Peer(UID, None), own_uid=UID, own_pid=SERVER, proc=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED is Linux's")
def test_the_kernel_tells_who_connected() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert read_peer(here) == Peer(os.getuid(), os.getpid())


def test_a_socket_without_credentials_is_refused() -> None:
    with socket.socket(socket.AF_INET) as closed:
        closed.close()
        with pytest.raises(DicodeError) as raised:
            read_peer(closed)
    assert raised.value.code is Code.FORBIDDEN

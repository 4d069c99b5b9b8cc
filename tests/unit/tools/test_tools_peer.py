"""Who may use the socket: the own user, and no task."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor.lineage import Lineage, Origin
from dicode_mcp.service.refused_tasks import RefusedTasks
from dicode_mcp.tools.peer import Peer, judge_process, read_peer, require_client

UID = 1000


def ask(peer: Peer, origin: Origin = Origin.CLIENT) -> None:
    """Ask for a peer of which this is known."""
    require_client(
        peer,
        own_uid=UID,
        judge=lambda pid: Lineage(origin, pid, "r1"),
        refused_tasks=RefusedTasks("the socket"),
    )


def refused(peer: Peer, origin: Origin = Origin.CLIENT) -> DicodeError:
    """Check that a peer is refused; give the error."""
    with pytest.raises(DicodeError) as raised:
        ask(peer, origin)
    assert raised.value.code is Code.FORBIDDEN
    return raised.value


@pytest.mark.parametrize("uid", [UID + 1, 0])
def test_another_user_is_refused(uid: int, caplog: pytest.LogCaptureFixture) -> None:
    assert "only the user" in refused(Peer(uid, 9)).message
    assert caplog.messages == []


@pytest.mark.parametrize("origin", [Origin.TASK, Origin.UNKNOWN])
def test_a_task_and_who_might_be_one_is_refused_and_told(
    origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    error = refused(Peer(UID, 9), origin)
    assert "task" in error.message
    assert "SDK" in (error.hint or "")
    assert "permissions.dicode" in (error.hint or "")
    (line,) = caplog.messages
    assert "pid 9" in line
    assert "over the socket" in line


def test_a_client_of_the_own_user_is_served() -> None:
    ask(Peer(UID, 9))


def test_where_no_process_can_be_seen_the_user_decides(tmp_path: Path) -> None:
    ask(Peer(UID, None), Origin.UNKNOWN)
    assert judge_process(9, proc=str(tmp_path / "none")).origin is Origin.CLIENT


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_servers_own_process_is_a_client() -> None:
    assert judge_process(os.getpid()).origin is Origin.CLIENT


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

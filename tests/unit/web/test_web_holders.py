"""Who holds a socket, told from real sockets and real processes."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dicode_mcp
from dicode_mcp.executor.lineage import Lineage, Origin
from dicode_mcp.web.holders import SocketHolders

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

NOBODY = -1
"""A server that stands above no process."""


def inode_of(held: socket.socket) -> int:
    return os.fstat(held.fileno()).st_ino


def look(holders: SocketHolders, inode: int) -> Lineage:
    return holders.look([inode])[inode]


@pytest.fixture
def link() -> Generator[socket.socket]:
    """Give one side of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


_WAIT = "import sys; print(flush=True); sys.stdin.read()"


@contextmanager
def held_by_child(
    link: socket.socket, program: str = _WAIT, env: dict[str, str] | None = None
) -> Generator[int]:
    """Let a process hold the socket too, while the block lasts; gives its pid."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program, str(link.fileno())],
        env=env or {},
        pass_fds=[link.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.communicate()


def test_a_socket_of_the_servers_own_process_is_a_clients(link: socket.socket) -> None:
    found = look(SocketHolders(os.getpid()), inode_of(link))
    assert found == Lineage(Origin.CLIENT, os.getpid())


def test_a_socket_that_a_process_below_the_server_holds_is_a_tasks(link: socket.socket) -> None:
    with held_by_child(link) as pid:
        # This process holds it as well: what a client and a task share is the task's.
        assert look(SocketHolders(os.getpid()), inode_of(link)) == Lineage(Origin.TASK, pid)


def test_a_socket_of_another_servers_task_is_a_tasks(link: socket.socket) -> None:
    inode = inode_of(link)
    with held_by_child(link, env={"DICODE_RUN_ID": "r1"}) as pid:
        link.close()
        assert look(SocketHolders(NOBODY), inode) == Lineage(Origin.TASK, pid, "r1")


def test_a_client_is_known_again_until_it_ends(link: socket.socket) -> None:
    holders, inode = SocketHolders(NOBODY), inode_of(link)
    with held_by_child(link) as pid:
        link.close()
        assert look(holders, inode) == Lineage(Origin.CLIENT, pid)
        assert look(holders, inode) == Lineage(Origin.CLIENT, pid)
    assert look(holders, inode).origin is Origin.UNKNOWN


def test_one_look_tells_of_many_sockets(link: socket.socket) -> None:
    with held_by_child(link) as pid, socket.socket() as own:
        inodes = [inode_of(link), inode_of(own), 1]
        link.close()
        assert SocketHolders(os.getpid()).look(inodes) == {
            inodes[0]: Lineage(Origin.TASK, pid),
            inodes[1]: Lineage(Origin.CLIENT, os.getpid()),
            1: Lineage(Origin.UNKNOWN),
        }


def test_a_socket_under_way_between_processes_is_nobodys(link: socket.socket) -> None:
    inode = inode_of(link)
    here, there = socket.socketpair()
    with here, there:
        fds = array.array("i", [link.fileno()])
        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        link.close()
        assert look(SocketHolders(os.getpid()), inode).origin is Origin.UNKNOWN


_IN_A_THREADS_OWN_TABLE = """
import ctypes, os, sys, threading
fd = int(sys.argv[1])
ready, done = threading.Event(), threading.Event()
def hide():
    assert ctypes.CDLL(None).unshare(0x400) == 0
    ready.set()
    done.wait()
thread = threading.Thread(target=hide)
thread.start()
ready.wait()
os.close(fd)
print(flush=True)
sys.stdin.read()
done.set()
"""


def test_a_socket_in_a_threads_own_table_is_nobodys(link: socket.socket) -> None:
    inode = inode_of(link)
    with held_by_child(link, _IN_A_THREADS_OWN_TABLE):
        link.close()
        assert look(SocketHolders(os.getpid()), inode).origin is Origin.UNKNOWN


def test_a_process_whose_descriptors_cannot_be_read_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "9").mkdir()
    assert look(SocketHolders(NOBODY, str(tmp_path)), 7).origin is Origin.UNKNOWN


def test_a_machine_without_processes_to_see_has_no_clients(
    link: socket.socket, tmp_path: Path
) -> None:
    holders = SocketHolders(NOBODY, str(tmp_path / "none"))
    assert look(holders, inode_of(link)).origin is Origin.UNKNOWN


_MARKED = """
import sys
sys.path.insert(0, sys.argv[2])
from dicode_mcp.executor.carriers import hold_mark
print(flush=True)
for line in sys.stdin:
    mark = hold_mark()
    print(flush=True)
"""


def test_a_socket_of_another_server_that_connects_for_its_tasks_is_a_tasks(
    link: socket.socket,
) -> None:
    inode = inode_of(link)
    root = str(Path(dicode_mcp.__file__).parents[1])
    words = [sys.executable, "-I", "-c", _MARKED, str(link.fileno()), root]
    with subprocess.Popen(
        words,
        env={},
        pass_fds=[link.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        link.close()
        holders = SocketHolders(NOBODY)
        assert look(holders, inode) == Lineage(Origin.CLIENT, child.pid)
        child.stdin.write("mark\n")
        child.stdin.flush()
        child.stdout.readline()
        # Known from before, and still judged anew.
        assert look(holders, inode) == Lineage(Origin.TASK, child.pid)
        assert look(SocketHolders(NOBODY), inode) == Lineage(Origin.TASK, child.pid)
        child.communicate()

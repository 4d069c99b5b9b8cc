"""A fork server: an interpreter that has imported what most tasks need and becomes one per request.

It is started with nothing of the server's in it and never runs anything of a task itself. Each
child is the server's own, not this process's: so its end, its resource usage and what it leaves
behind are seen as those of a process that the server has started, and the end of this one is
nothing to those that run.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import importlib
import marshal
import os
import socket
import sys
from array import array

from dicode_mcp.cage import apply as cage
from dicode_mcp.cage import ending, namespaces, network, start
from dicode_mcp.cage.syscalls import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IPC = 9
"""The number of the run's connection to the server in each child."""
ROOM = "DICODE_ROOM"
"""The variable of this process in whose place each child's marks are written."""
_FDS = 5
_HIGH = 16
_CLONE_PARENT, _SIGCHLD = 0x8000, 17


def serve(fd: int, file: str, path: str, imports: list[str]) -> None:
    """Answer requests until the server has gone. In a child: be the run, to the end.

    ``file`` is what runs start with.
    """
    channel = socket.socket(fileno=fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH))
    os.close(fd)
    try:
        _prepare(file, path, imports)
    except BaseException as error:
        _say(channel, f"failed {type(error).__name__}: {error}"[:500])
        os._exit(1)
    _say(channel, "ready")
    while True:
        request, fds = _receive(channel)
        if request is None:
            os._exit(0)
        _mark(request["marks"])
        try:
            pid, born = _fork(request["spaces"])
        except OSError as error:
            _say(channel, f"{request['id']} {-(error.errno or 1)}")
            pid, born = -1, False
        if pid == 0:
            # By what the server sees of it: it may be a first process in its own eyes.
            _say(channel, f"{request['id']} {os.readlink('/proc/self')}")
            channel.detach()
            _be(fds, born)
        _mark(b"")
        for each in fds:
            os.close(each)


def _prepare(file: str, path: str, imports: list[str]) -> None:
    sys.path.insert(0, path)
    for name in imports:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # an interpreter that was built without it
    sys.path.remove(path)
    assert network  # here already, so that a run need not import it
    start.prepare(file)
    if os.geteuid() == 0:
        namespaces.drop_groups()
    _libc.syscall.restype = ctypes.c_long
    _libc.getenv.restype = ctypes.c_void_p
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("an import has started a thread")
    gc.collect()
    gc.freeze()
    gc.disable()


_libc = ctypes.PyDLL(None, use_errno=True)


def _say(channel: socket.socket, text: str) -> None:
    try:
        channel.send(text.encode())
    except OSError:
        os._exit(0)


def _receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    data, fds = _read_fds(channel, 4096)
    return (marshal.loads(data) if data else None), fds


def _read_fds(channel: socket.socket, most: int) -> tuple[bytes, list[int]]:
    size = array("i").itemsize * _FDS
    data, extra, _, _ = channel.recvmsg(most, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
    fds = array("i")
    for level, kind, content in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)


def _mark(marks: bytes) -> None:
    """Write marks where ``/proc/<pid>/environ`` shows them: before the fork, so from its birth."""
    at: int | None = _libc.getenv(ROOM.encode())
    if at is not None:
        _room.append((at - len(ROOM) - 1, len(os.environ[ROOM]) + len(ROOM) + 1))
    address, size = _room[0]
    ctypes.memmove(address, marks[: size - 1].ljust(size, b"\0"), size)


_user = (os.geteuid(), os.getegid())
_room: list[tuple[int, int]] = []


def _fork(spaces: list[str]) -> tuple[int, bool]:
    """Make a child of the server; tells also whether it is born in the namespaces named."""
    if not spaces:
        return _grandchild(), False
    try:
        return _sibling(namespaces.flags(spaces)), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # A kernel that will not have a sibling in other namespaces: it enters them itself.
        return _sibling(0), False


def _sibling(flags: int) -> int:
    """Fork so that the child's parent is this process's own.

    Neither Python nor the C library is told: with one thread there is nothing to mend in the child,
    which forks again in the usual way before anything of the task runs. To tell them costs as much
    as the rest.
    """
    pid: int = _libc.syscall(number("clone"), _CLONE_PARENT | _SIGCHLD | flags, 0, 0, 0, 0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pid


def _grandchild() -> int:
    """Fork twice: the one in between ends, and the child falls to the server, a subreaper."""
    between = os.fork()
    if between:
        _, status = os.waitpid(between, 0)
        if status:
            raise OSError(os.waitstatus_to_exitcode(status), "fork")
        return between
    holds, waits = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os._exit(error.errno or 1)
    if pid:
        os._exit(0)
    # Goes on once the one in between has ended, so that the server is its parent by then.
    os.close(waits)
    os.read(holds, 1)
    os.close(holds)
    return 0


def _be(fds: list[int], born: bool) -> None:
    """Take the run's descriptors to their places, confine this process and run the task."""
    os.setsid()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH) for fd in fds]
    out, err, control, file, *ipc = high
    os.dup2(out, 1)
    os.dup2(err, 2)
    if ipc:
        os.dup2(ipc[0], IPC)
    if os.read(control, 1) != b"g":
        os._exit(cage.REFUSED_EXIT)
    plan = start.read(file)
    cage.apply(plan, control, born=_user if born else None)
    gc.enable()
    if plan["waits"]:
        _await_run(plan, control)
    ending.end(lambda: start.become(plan, ending.remember))


def _await_run(plan: dict[str, Any], control: int) -> None:
    """Wait for the run that this process is to be, and take what it is given.

    Ends the process when the server does not want it any more.
    """
    way = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, control)
    data, fds = _read_fds(way, 1)
    if not data:
        os._exit(0)
    file, ipc = fds
    way.close()
    os.close(plan["begun"])
    os.dup2(ipc, IPC)
    os.close(ipc)
    given = start.read(file)
    plan["env"] = given["env"]
    _mark(given["marks"])

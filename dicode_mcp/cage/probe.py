"""What this machine lets a cage do, found out by doing it in processes that end at once.

Run as ``python -I -S cage/__main__.py probe <empty folder>``; writes one JSON object.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from _struct import pack

from dicode_mcp.cage import landlock, namespaces, seccomp, tree
from dicode_mcp.cage.syscalls import machine, number, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALONE = ["mount", "pid", "ipc", "uts", "net"]
"""What a run is given of its own, with a namespace of users, or as root without one."""


def main(args: Sequence[str]) -> None:
    """Write what was found to stdout."""
    folder = args[0]
    found: dict[str, object] = {"machine": machine(), "uid": os.geteuid()}
    try:
        number("seccomp")
        found["landlock"] = landlock.abi()
        found["seccomp"] = _try(_seccomp)
        found["told"] = _try(_told)
        found["user"] = _try(lambda: namespaces.enter(["user"]))
        found["net"] = _try(lambda: _net(["user"]))
        found["files"] = _try(lambda: _files(["user"], folder))
        found["files_as_root"] = _try(lambda: _files([], folder)) if os.geteuid() == 0 else "uid"
    except OSError as error:
        found["error"] = str(error)
    json.dump(found, sys.stdout)


def _seccomp() -> None:
    code = seccomp.program(families=(), exec=False, meta=True, signals=True, unsealed=False)
    seccomp.install(code)
    try:
        os.execv("/nowhere", ["/nowhere"])
    except PermissionError:
        return
    raise OSError(38, "a filter was taken and does not hold")


def _told() -> None:
    """Ask for notices of calls, and whether their caller can be given descriptors (Linux 5.9)."""
    heard = seccomp.install_told(
        seccomp.program(
            families=(), exec=False, meta=True, signals=True, unsealed=False, told=True, led=True
        )
    )
    try:
        syscall("ioctl", heard, _ADD_DESCRIPTOR, pack("=QIIII", 0, 0, heard, 0, 0))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


_ADD_DESCRIPTOR = 0x40182103


def _net(more: list[str]) -> None:
    namespaces.enter([*more, "net"])
    namespaces.raise_loopback()


def _files(more: list[str], folder: str) -> None:
    namespaces.enter([*more, *ALONE])
    failed = _in_child(lambda: tree.build(_ENTRIES, folder, 1 << 20))
    if failed:
        raise OSError(0, failed)


_ENTRIES: list[list[object]] = [
    ["processes", "/proc", True],
    ["bind", "/dev/null", "nosuid", True],
    ["memory", "/tmp", 1 << 20],
]


def _try(act: Callable[[], None]) -> str:
    """Give why something cannot be done, empty when it can."""
    return _in_child(act)


def _in_child(act: Callable[[], None]) -> str:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        told = ""
        try:
            act()
        except OSError as error:
            told = f"{error.filename or 'it'}: {error.strerror}"
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode()[:500])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read().decode()
    _, status = os.waitpid(pid, 0)
    return told or ("" if status == 0 else f"ended with status {status}")

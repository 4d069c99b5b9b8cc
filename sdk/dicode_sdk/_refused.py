"""Telling what the sandbox keeps from a task: a line in the log, and the line of task.yaml to add.

The wall is the kernel's, in the server's hands. This only looks at what Python is asked to do,
and knows from the manifest what will be refused; native code passes it by and meets the wall.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/dev", "/sys")
_REFUSED = frozenset({1, 13, 30})
"""EPERM, EACCES, EROFS."""
_NOT_THERE = 2
_MOST = 20
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ON_PATHS = {
    "os.listdir": False,
    "os.scandir": False,
    "os.mkdir": True,
    "os.remove": True,
    "os.rmdir": True,
    "os.rename": True,
    "os.truncate": True,
    "os.chmod": True,
    "os.utime": True,
}
_PROGRAMS = frozenset({"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"})
_NETWORK = frozenset({"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"})
_quote = '"{}"'.format


class Grants:
    """What the manifest grants, as the start frame has it, and where the task always may."""

    def __init__(self, permissions: dict[str, Any], folder: str) -> None:
        self.net: list[str] = permissions.get("net") or []
        self.run: list[str] = permissions.get("run") or []
        self._folder = folder
        own = [os.environ.get("HOME"), os.environ.get("TMPDIR"), "/dev"]
        if os.access("/tmp", os.W_OK):
            own.append("/tmp")
        self._write = [path for path in own if path]
        self._read = [folder, *self._write, *_SYSTEM, sys.base_prefix, sys.prefix, *sys.path]
        granted: list[tuple[str, str]] = permissions.get("fs") or []
        for path, how in granted:
            if "r" in how:
                self._read.append(path)
            if "w" in how:
                self._write.append(path)

    def path(self, path: str, *, write: bool) -> bool:
        """Tell whether a path may be used."""
        path = os.path.normpath(os.path.join(os.getcwd(), path))
        allowed = self._write if write else self._read
        return any(path == each or path.startswith(each.rstrip("/") + "/") for each in allowed)

    def line_for(self, path: str, write: bool) -> str:
        """Say what to add to task.yaml for a path."""
        full = os.path.normpath(os.path.join(os.getcwd(), path))
        if write and os.path.dirname(full) == self._folder:
            return (
                "the task's own files are read-only: write below TMPDIR, or to a folder for it; "
                + grant_path(os.path.join(self._folder, "data"), write)
            )
        return grant_path(full, write)


_grants: Grants | None = None


def watch(grants: Grants, tell: Callable[[str], None]) -> None:
    """Tell of what will be refused, each thing once, and at most twenty of them."""
    global _grants
    _grants = grants
    told: set[str] = set()
    busy = False

    def look(event: str, args: tuple[Any, ...]) -> None:
        nonlocal busy
        if (event != "open" and event not in _ON_PATHS and event not in _OTHERS) or busy:
            return
        busy = True
        try:
            found = _line(event, args, grants)
            if found is not None and found not in told and len(told) < _MOST:
                told.add(found)
                tell(found)
        except Exception:
            pass  # never the task's trouble
        finally:
            busy = False

    sys.addaudithook(look)


_OTHERS = _PROGRAMS | _NETWORK


def _line(event: str, args: tuple[Any, ...], grants: Grants) -> str | None:
    if event == "open":
        path, _, flags = args
        return _file(path, bool(isinstance(flags, int) and flags & _WRITING), grants)
    if event in _ON_PATHS:
        if _in_open_folder(args):
            return None
        return _file(args[0], _ON_PATHS[event], grants)
    if event in _NETWORK:
        return None if grants.net else _network(event, args)
    return None if grants.run else _program(args[0])


def _in_open_folder(args: tuple[Any, ...]) -> bool:
    """Tell whether a path is meant from an open folder (``dir_fd``), which was looked at before."""
    return len(args) > 1 and isinstance(args[-1], int) and args[-1] != -1 and args[0][:1] != "/"


def _file(path: Any, write: bool, grants: Grants) -> str | None:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str) or grants.path(path, write=write):
        return None
    verb = "write" if write else "read"
    return f"blocked: {verb} {path[:300]} - {grants.line_for(path, write)}"


def grant_path(full: str, write: bool) -> str:
    """Give the line of task.yaml that grants an absolute path."""
    how = "rw" if write else "r"
    return f"add to task.yaml: permissions.fs: [{{path: {_quote(full)}, permission: {how}}}]"


def _network(event: str, args: tuple[Any, ...]) -> str | None:
    host, port = (args[1][0], args[1][1]) if event == "socket.connect" else (args[0], None)
    if isinstance(host, bytes):
        host = host.decode("utf-8", "replace")
    if not isinstance(host, str) or not host or host in ("localhost", "127.0.0.1", "::1"):
        return None
    return f"blocked: connect {host}{f':{port}' if port else ''} - {grant_host(host)}"


def grant_host(host: str) -> str:
    """Give the line of task.yaml that grants a host."""
    return f"add to task.yaml: permissions.net: [{_quote(host)}]"


def _program(program: Any) -> str | None:
    if isinstance(program, bytes):
        program = os.fsdecode(program)
    if not isinstance(program, str) or not program:
        return None
    name = os.path.basename(program.split()[0])
    return f"blocked: run {name} - {grant_program(name)}"


def grant_program(name: str) -> str:
    """Give the line of task.yaml that grants a program."""
    return f"add to task.yaml: permissions.run: [{_quote(name)}]"


def hint(error: BaseException) -> str | None:
    """Say what to add to task.yaml when an error is the sandbox's doing."""
    grants = _grants
    if grants is None or not isinstance(error, OSError):
        return None
    path = error.filename
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, str) and path:
        return _hint_for_path(error, path, grants)
    if error.errno in (101, 113, -3, -2) and not grants.net:
        return 'this task has no network; list its hosts in task.yaml: permissions.net: ["host"]'
    return None


def _hint_for_path(error: OSError, path: str, grants: Grants) -> str | None:
    if error.errno in (1, 13) and not grants.run and _is_program(error):
        return grant_program(os.path.basename(path))
    if error.errno in _REFUSED:
        write = error.errno == 30 or not grants.path(path, write=True)
        if not grants.path(path, write=False):
            write = error.errno == 30
        elif grants.path(path, write=True):
            return None
        return grants.line_for(path, write)
    if error.errno == _NOT_THERE and not grants.path(path, write=False):
        return f"the task does not see this path; {grants.line_for(path, write=False)}"
    return None


def _is_program(error: OSError) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in ("_execute_child", "_execvpe"):
            return True
        trace = trace.tb_next
    return False

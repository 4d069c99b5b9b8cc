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
        own_code = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._read = [folder, *self._write, *_SYSTEM, sys.base_prefix, sys.prefix, *sys.path]
        self._read.append(own_code)
        self._to_read: list[str] = []
        self._to_write: list[str] = []
        granted: list[tuple[str, str]] = permissions.get("fs") or []
        for path, how in sorted(granted, key=lambda grant: -len(grant[0])):
            if "r" in how:
                self._to_read.append(path)
            if "w" in how:
                self._to_write.append(path)

    def path(self, path: str, *, write: bool) -> bool:
        """Tell whether a path may be used."""
        return self.place(path, write=write) is not None

    def place(self, path: str, *, write: bool) -> str | None:
        """Give the grant a path may be used by, empty where every task may; None: it may not."""
        if path[:1] != "/" or "/." in path:
            path = os.path.normpath(os.path.join(os.getcwd(), path))
        for each in self._to_write if write else self._to_read:
            if path == each or path.startswith(each.rstrip("/") + "/"):
                return each
        for each in self._write if write else self._read:
            if path == each or path.startswith(each.rstrip("/") + "/"):
                return ""
        return None

    def program(self, name: str) -> bool:
        """Tell whether a program may be started."""
        return "*" in self.run or any(os.path.basename(each) == name for each in self.run)

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
_note: Callable[[str, str], None] | None = None
_started: set[str] = set()
"""Names of programs that were to be started; an error may also name the folder to start it in."""


def watch(grants: Grants, tell: Callable[[str], None], note: Callable[[str, str], None]) -> None:
    """Tell of what will be refused, each thing once, and at most twenty of them.

    ``note`` is given kind and name of all that is used, refused or not, but for what every task
    may.
    """
    global _grants, _note
    _grants, _note = grants, note
    told: set[str] = set()
    known: set[tuple[Any, bool]] = set()
    busy = False

    def look(event: str, args: tuple[Any, ...]) -> None:
        nonlocal busy
        if event not in _LOOKED_AT or busy:
            return
        busy = True
        try:
            if event == "open":
                opened = (args[0], bool(isinstance(args[2], int) and args[2] & _WRITING))
                if opened in known:
                    return
                if len(known) >= _MOST_KNOWN:
                    known.clear()
                known.add(opened)
            elif event in _MOVES:
                known.clear()
                return
            for kind, what, line in _found(event, args, grants):
                note(kind, what)
                if line is not None and line not in told and len(told) < _MOST:
                    told.add(line)
                    tell(line)
        except Exception:
            pass  # never the task's trouble
        finally:
            busy = False

    sys.addaudithook(look)


_FORKS = frozenset({"os.fork", "os.forkpty"})
_MOVES = frozenset({"os.chdir", "os.fchdir"})
_LOOKED_AT = frozenset({"open", *_ON_PATHS, *_PROGRAMS, *_NETWORK, *_FORKS, *_MOVES})
_MOST_KNOWN = 4096


def _found(event: str, args: tuple[Any, ...], grants: Grants) -> list[tuple[str, str, str | None]]:
    """Give what an event uses: kind, name, and the line to tell when it will be refused."""
    if event == "open":
        path, _, flags = args
        flags = flags if isinstance(flags, int) else 0
        found = _file(path, bool(flags & _WRITING), grants)
        if flags & os.O_ACCMODE == os.O_RDWR:
            found += [(kind, what, None) for kind, what, _ in _file(path, False, grants)]
        return found
    if event in _ON_PATHS:
        return [] if _in_open_folder(args) else _file(args[0], _ON_PATHS[event], grants)
    if event in _NETWORK:
        return [] if grants.net else _network(event, args)
    return [("blind", "fork", None)] if event in _FORKS else _program(args[0], grants)


def _in_open_folder(args: tuple[Any, ...]) -> bool:
    """Tell whether a path is meant from an open folder (``dir_fd``), which was looked at before."""
    return len(args) > 1 and isinstance(args[-1], int) and args[-1] != -1 and args[0][:1] != "/"


def _file(path: Any, write: bool, grants: Grants) -> list[tuple[str, str, str | None]]:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str):
        return []
    verb = "write" if write else "read"
    place = grants.place(path, write=write)
    if place is not None:
        return [(verb, place, None)] if place else []
    full = os.path.normpath(os.path.join(os.getcwd(), path))
    return [(verb, full, f"blocked: {verb} {path[:300]} - {grants.line_for(path, write)}")]


def grant_path(full: str, write: bool) -> str:
    """Give the line of task.yaml that grants an absolute path."""
    how = "rw" if write else "r"
    return f"add to task.yaml: permissions.fs: [{{path: {_quote(full)}, permission: {how}}}]"


def _network(event: str, args: tuple[Any, ...]) -> list[tuple[str, str, str | None]]:
    host, port = (args[1][0], args[1][1]) if event == "socket.connect" else (args[0], None)
    if isinstance(host, bytes):
        host = host.decode("utf-8", "replace")
    if not isinstance(host, str) or not host or host in ("localhost", "127.0.0.1", "::1"):
        return []
    place = f"{host}:{port}" if port else host
    if event == "socket.getaddrinfo" and isinstance(args[1], int) and args[1] > 0:
        place = f"{host}:{args[1]}"
    shown = f"{host}{f':{port}' if port else ''}"
    return [("net", place, f"blocked: connect {shown} - {grant_host(host)}")]


def grant_host(host: str) -> str:
    """Give the line of task.yaml that grants a host."""
    return f"add to task.yaml: permissions.net: [{_quote(host)}]"


def _program(program: Any, grants: Grants) -> list[tuple[str, str, str | None]]:
    program = os.fsdecode(program)
    if not program:
        return []
    name = os.path.basename(program.split()[0])
    if len(_started) < _MOST_KNOWN:
        _started.add(name)
    if grants.program(name):
        return [("run", name, None)]
    return [("run", name, f"blocked: run {name} - {grant_program(name)}")]


def grant_program(name: str) -> str:
    """Give the line of task.yaml that grants a program."""
    return f"add to task.yaml: permissions.run: [{_quote(name)}]"


def hint(error: BaseException) -> str | None:
    """Say what to add to task.yaml when an error is the sandbox's doing."""
    grants = _grants
    if grants is None:
        return None
    if isinstance(error, KeyError):
        return _missing_variable(error)
    if not isinstance(error, OSError):
        return None
    path = error.filename
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, str) and path:
        return _hint_for_path(error, path, grants)
    if error.errno in (101, 113, -3, -2) and not grants.net:
        return 'this task has no network; list its hosts in task.yaml: permissions.net: ["host"]'
    return None


def _missing_variable(error: KeyError) -> str | None:
    """Say what to add for a variable that ``os.environ`` does not have."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = error.args[0] if error.args else None
    if trace is None or trace.tb_frame.f_globals.get("__name__") != "os":
        return None
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("DICODE_"):
        return None
    if _note is not None:
        _note("env", name)
    return f"add to task.yaml: permissions.env: [{_quote(name)}]"


def _hint_for_path(error: OSError, path: str, grants: Grants) -> str | None:
    name = os.path.basename(path)
    if error.errno in (1, 2, 13) and name in _started and _is_program(error):
        return None if grants.program(name) else grant_program(name)
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

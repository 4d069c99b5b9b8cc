"""The server as a process: is one running, start one in the background, stop it.

Knows the lock file, the log file and how to wait; nothing of what the server does. Two clients
that start a server at once take turns on ``server.starting``, so that one server is the result.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple, cast

from dicode_mcp.cli.client import Client, Hello
from dicode_mcp.cli.failures import unreachable
from dicode_mcp.cli.places import Places
from dicode_mcp.errors import Code, DicodeError

START_SECONDS = 30.0
STOP_SECONDS = 40.0
"""Longer than ``execution.drain`` and the time its processes get to end."""
LOG_LIMIT = 10 * 1024 * 1024
_PAUSE = 0.02
_NAMING_SECONDS = 2.0


class Holder(NamedTuple):
    """The server that holds the lock of a data dir."""

    pid: int
    version: str
    host: str | None = None
    port: int | None = None
    started_at_ms: int | None = None


class Start(NamedTuple):
    """How a server was or is to be started: its arguments and its working directory."""

    arguments: tuple[str, ...]
    cwd: str


def daemon_command(places: Places, arguments: Sequence[str]) -> list[str]:
    """Give the command line of a server; ``-P`` keeps files of the working directory out of it."""
    command = [sys.executable, "-P", "-m", "dicode_mcp.daemon", "--data-dir", places.data_dir]
    if places.named_config:
        command += ["--config", places.named_config]
    return [*command, *arguments]


def holder(places: Places) -> Holder | None:
    """Tell which server holds the data dir; None when none does.

    The file stays when a server is killed, so the flock decides and the text only names the pid.
    """
    try:
        descriptor = os.open(places.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DicodeError(
            Code.DATA_DIR,
            f"cannot read {places.lock}: {error.strerror}",
            hint="run as the user who owns the data dir, or use another with --data-dir",
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        if not _is_locked(file.fileno()):
            return None
        return _read_holder(file.read())


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _read_holder(text: bytes) -> Holder:
    try:
        document: Any = json.loads(text)
    except ValueError:
        document = None
    facts = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    pid, port, started = facts.get("pid"), facts.get("port"), facts.get("started_at_ms")
    host = facts.get("host")
    return Holder(
        pid if isinstance(pid, int) else 0,
        str(facts.get("version", "")),
        host if isinstance(host, str) else None,
        port if isinstance(port, int) else None,
        started if isinstance(started, int) else None,
    )


def is_answering(places: Places) -> Hello | None:
    """Ask the socket who is there; None when no server answers.

    A refusal (another user's server, a task that must not connect) is raised, not answered None.
    """
    try:
        with Client.connect(places.socket, timeout=2.0) as client:
            return client.hello
    except DicodeError as error:
        if error.code is Code.UNREACHABLE:
            return None
        raise


def start_detached(places: Places, start: Start, seconds: float = START_SECONDS) -> Hello:
    """Have a server run in the background and return once it answers.

    When one runs already, or another client starts one meanwhile, that one is used. Raises
    ``DicodeError`` with the server's own last line when it ends instead of answering.
    """
    deadline = time.monotonic() + seconds
    _make_data_dir(places)
    with _turn(places.starting, deadline):
        hello = _settled(places, deadline)
        if hello is None:
            hello = _spawn_and_wait(places, start, deadline)
            remember_start(places, start)
        return hello


def wait_until_answers(places: Places, seconds: float = START_SECONDS) -> Hello:
    """Return once a server answers that somebody else starts; raises UNREACHABLE when none does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        hello = is_answering(places)
        if hello is not None:
            return hello
        time.sleep(_PAUSE)
    raise unreachable("the server does not answer yet", "run `dicode service status`")


def _settled(places: Places, deadline: float) -> Hello | None:
    """Give the server that answers, or None once no process holds the data dir.

    One that holds it and does not answer is just starting or just ending.
    """
    while True:
        hello = is_answering(places)
        if hello is not None:
            return hello
        found = holder(places)
        if found is None:
            return None
        if time.monotonic() >= deadline:
            raise unreachable(
                f"a server (pid {found.pid}) holds {places.data_dir} but does not answer",
                "run `dicode doctor`, or `dicode restart`",
            )
        time.sleep(_PAUSE)


def _spawn_and_wait(places: Places, start: Start, deadline: float) -> Hello:
    with _open_log(places.log) as log:
        offset = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            daemon_command(places, start.arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=start.cwd,
            start_new_session=True,
        )
    while time.monotonic() < deadline:
        hello = is_answering(places)
        if hello is not None:
            # It outlives this command on purpose; without this Popen warns when collected.
            process.returncode = process.poll() or 0
            return hello
        if process.poll() is not None and holder(places) is None:
            raise _ended_early(process.returncode, places.log, offset)
        time.sleep(_PAUSE)
    raise unreachable(
        "the server was started but does not answer yet",
        f"look at the last lines of {places.log}; `dicode doctor` checks this machine",
    )


def _ended_early(code: int, log: str, offset: int) -> DicodeError:
    last = last_line(log, offset).removeprefix("dicode: ") or f"it ended with exit code {code}"
    return DicodeError(
        Code.INVALID_CONFIG if code == 2 else Code.UNREACHABLE,
        f"the server did not start: {last}",
        hint=f"its log is {log}",
    )


def last_line(path: str, offset: int = 0) -> str:
    """Give the last line that is not blank, at or after ``offset``."""
    with suppress(OSError), open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(offset, size - 8192))
        text = file.read().decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else ""
    return ""


def _make_data_dir(places: Places) -> None:
    try:
        os.makedirs(places.data_dir, mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unusable(places.data_dir, error) from None


def _unusable(data_dir: str, error: OSError) -> DicodeError:
    return DicodeError(
        Code.DATA_DIR,
        f"cannot use the data dir {data_dir}: {error.strerror}",
        hint="make it writable for this user, or choose another with --data-dir",
    )


@contextmanager
def _turn(path: str, deadline: float) -> Generator[None]:
    """Hold the flock on ``path``, waiting for it until ``deadline``."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(os.path.dirname(path), error) from None
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise unreachable(
                        "another command is starting the server and has not finished",
                        "run `dicode status`",
                    ) from None
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _open_log(path: str) -> BinaryIO:
    """Open the server's log for appending; one older file is kept when it has grown large."""
    with suppress(FileNotFoundError):
        if os.stat(path).st_size > LOG_LIMIT:
            os.replace(path, path + ".1")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(os.path.dirname(path), error) from None
    return os.fdopen(descriptor, "ab")


def remember_start(places: Places, start: Start) -> None:
    """Store how the server was started, for ``dicode restart``."""
    draft = f"{places.arguments}.{os.getpid()}"
    facts = {"arguments": list(start.arguments), "cwd": start.cwd, "config": places.named_config}
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(facts, file)
        os.replace(draft, places.arguments)
    except OSError as error:
        raise _unusable(places.data_dir, error) from None


def remembered_start(places: Places) -> tuple[Start, str | None] | None:
    """Give how the server was started last, with the config it was told; None if unknown."""
    try:
        with open(places.arguments, encoding="utf-8") as file:
            facts: Any = json.load(file)
        start = Start(tuple(str(part) for part in facts["arguments"]), str(facts["cwd"]))
        config = facts.get("config")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return start, config if isinstance(config, str) else None


def stop(places: Places, seconds: float = STOP_SECONDS) -> Holder | None:
    """Ask the server to end and wait until it has let go of the data dir.

    Gives the server that ended, None when none ran. Raises ``DicodeError(CONFLICT)`` when it
    still runs after ``seconds``.
    """
    found = _named_holder(places)
    if found is None:
        return None
    _check_holds(places, found.pid)
    try:
        os.kill(found.pid, signal.SIGTERM)
    except ProcessLookupError:
        return found
    except PermissionError:
        raise DicodeError(
            Code.FORBIDDEN,
            f"the server (pid {found.pid}) belongs to another user",
            hint="stop it as that user",
        ) from None
    _wait_until_gone(places, found.pid, seconds)
    return found


def _named_holder(places: Places) -> Holder | None:
    """Give the holder; one that has only just started gets a moment to write its pid."""
    deadline = time.monotonic() + _NAMING_SECONDS
    while (found := holder(places)) is not None and found.pid == 0:
        if time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE)
    return found


def _check_holds(places: Places, pid: int) -> None:
    """Refuse to signal a process that does not hold the lock file open.

    The pid in the file can be another process's when the lock is held from another container.
    """
    if pid > 0 and _holds_open(pid, places.lock):
        return
    raise DicodeError(
        Code.CONFLICT,
        f"the data dir {places.data_dir} is in use, but not by a process of this machine"
        f" with pid {pid}",
        hint="stop the server where it runs (another container or host)",
    )


def _holds_open(pid: int, path: str) -> bool:
    folder = f"/proc/{pid}/fd"
    if not os.path.isdir("/proc/self/fd"):
        return _is_alive(pid)
    try:
        wanted = os.stat(path)
        names = os.listdir(folder)
    except PermissionError:
        return _is_alive(pid)
    except OSError:
        return False
    for name in names:
        with suppress(OSError):
            if os.path.samestat(os.stat(f"{folder}/{name}"), wanted):
                return True
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _wait_until_gone(places: Places, pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        current = holder(places)
        if current is None or current.pid != pid:
            return
        time.sleep(_PAUSE)
    raise DicodeError(
        Code.CONFLICT,
        f"the server (pid {pid}) was asked to end {seconds:g} s ago and has not",
        hint=f"it may be waiting for its runs; wait and see `dicode status`, or `kill -9 {pid}`",
    )

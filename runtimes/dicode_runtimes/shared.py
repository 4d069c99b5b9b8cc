"""What runtimes that start a script have in common: its environment, its socket, its exit."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Exit, LaunchContext
from dicode_mcp.runs.model import Reason, RunError
from dicode_mcp.spec.model import Task

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PRIVATE_FOLDERS: Mapping[str, bytes] = {"home/": b"", "tmp/": b""}
"""What ``task_environment`` names below a run's scratch folder."""
_LONGEST_SOCKET = 100


def task_environment(context: LaunchContext, *, path: str, timezone: str | None) -> dict[str, str]:
    """Build a task's environment from nothing: ours, then what the manifest grants.

    Raises ``DicodeError(INVALID_SPEC)`` when the manifest names DICODE_*.
    """
    reserved = sorted(name for name in context.env if name.startswith("DICODE_"))
    if reserved:
        raise DicodeError(
            Code.INVALID_SPEC,
            f"permissions.env names {', '.join(reserved)}: DICODE_* is never given to a task",
            hint="use another name",
        )
    env = {
        "PATH": path,
        "HOME": str(context.scratch / "home"),
        "TMPDIR": str(context.scratch / "tmp"),
        "LANG": "C.UTF-8",
    }
    if timezone:
        env["TZ"] = timezone
    env.update(context.env)
    env["DICODE_RUN_ID"] = context.run.id
    env["DICODE_TASK_ID"] = context.task.id
    env["DICODE_INSTANCE"] = context.instance_id
    return env


def socket_path(scratch: Path) -> Path:
    """Give where a run's unix socket is made: in a folder of its own, which the run is shown.

    It is in the scratch folder when the system allows it: its path may have about 100 bytes.
    """
    path = scratch / "ipc" / "sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    mark = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    return Path("/tmp") / f"dicode-{os.geteuid()}-{mark}" / "sock"


def require_script(task: Task, names: str) -> Path:
    """Give the task's script. Raises ``DicodeError(TASK_NOT_READY)`` when it has none."""
    if task.script is None:
        raise DicodeError(
            Code.TASK_NOT_READY,
            f"task {task.id} has no script",
            hint=f"write {names} beside its task.yaml",
        )
    return task.script


def explain_exit(exit: Exit, task: Task, *, early: str) -> RunError | None:
    """Say what an exit means that the script did not report; ``early`` is how it leaves so."""
    if exit.timed_out:
        return RunError(
            Reason.TIMEOUT.value,
            f"the run took longer than its timeout of {_seconds(task.spec.timeout)}",
            hint="make it faster, or raise `timeout` in task.yaml",
        )
    if exit.stopped:
        return None
    if exit.signal is not None:
        return _signalled(exit.signal)
    if exit.exit_code:
        return RunError(
            Reason.EXIT_CODE.value,
            f"the process ended with exit code {exit.exit_code}",
            hint="the last lines of the log may say why (get_logs)",
        )
    return RunError(
        Reason.EXITED_EARLY.value,
        "the process ended before the script had finished, without an error",
        hint=early,
    )


def _signalled(number: int) -> RunError:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hint = None
    if number == signal.SIGKILL:
        hint = (
            "the server did not send it: most often the machine ran out of memory; "
            "use less of it, e.g. read large data in pieces"
        )
    elif number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT):
        hint = "native code crashed: an extension, or a stack or heap that grew too large"
    return RunError(Reason.SIGNAL.value, f"the process was ended by {name}", hint=hint)


def _seconds(value: float | None) -> str:
    return "no limit" if value is None else f"{value:g}s"


def authorities(context: LaunchContext) -> tuple[Path, ...]:
    """Give the certificate authorities' file or folder that the task was granted by its variable.

    Of the server's own variables alone: what a manifest writes as a value opens no file.
    """
    granted = {
        entry.name
        for entry in context.task.spec.permissions.env
        if entry.source == "host" and entry.key in (None, entry.name) and entry.name in _AUTHORITIES
    }
    paths = (Path(context.env[name]) for name in sorted(granted) if context.env.get(name))
    return tuple(path for path in paths if path.is_absolute() and path.exists())


_AUTHORITIES = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR"})

"""The life of a Python task's process: meet the server, run the script, tell how it ended.

In two stages, so that a fork server can do the first once: ``prepare`` imports, ``run`` is one run.
"""

from __future__ import annotations

import builtins
import os
import sys

import dicode_sdk
from dicode_sdk import _api, _channel, _result, _script, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dicode_sdk._channel import Channel
    from dicode_sdk._seen import Seen

SDK_FOLDER = os.path.dirname(os.path.abspath(__file__))


def prepare(folders: str = "") -> None:
    """Do what does not depend on the run; ``folders`` are those of installed packages.

    The SDK's own files may be cached, the task's not.
    """
    sys.path.extend(folder for folder in folders.split(os.pathsep) if folder)
    if not hasattr(builtins, "exit"):
        # What Python's own start would have put there.
        builtins.exit = builtins.quit = sys.exit
    # The task's folder is read-only to the task, and a cache there would look like an edit.
    sys.dont_write_bytecode = True


def inherited_fd() -> int:
    """Give the descriptor of the connection, which the task's own children do not inherit."""
    fd = int(os.environ["DICODE_IPC_FD"])
    os.set_inheritable(fd, False)
    return fd


def run(fd: int, script: str, *, caged: bool = False) -> None:
    """Run one task to its end. Ends the process by ``SystemExit`` when the script failed.

    ``caged``: the process is held to the task's permissions, so refusals are worth a word.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
    channel = _channel.Channel(fd)
    start = channel.receive()["start"]
    names = install(channel, start)
    seen = None
    if caged and "permissions" in start:
        seen = _watch(start["permissions"], os.path.dirname(script), channel)
    outcome = perform(script, names, start.get("code"))
    _join_threads()
    _flush()
    if channel.suspended:
        # However the script ended: it is started again once there is an answer.
        outcome = _result.Outcome()
    frame = outcome.as_frame()
    if seen is not None:
        # There also when it is empty: all that can be seen was.
        frame["used"] = seen.rest()
    channel.send({"finish": frame})
    if outcome.exit_code:
        raise SystemExit(outcome.exit_code)


def install(channel: Channel, start: dict[str, Any]) -> dict[str, Any]:
    """Make the task's names, put them into ``dicode_sdk`` and give them."""
    names: dict[str, Any] = {
        "params": _api.Params(start.get("params") or {}),
        "env": _api.Env(),
        "kv": _api.Kv(channel),
        "input": start.get("input"),
        "request": start.get("request"),
        "output": _api.Output(channel),
        "log": _api.Log(),
        "dicode": _api.Dicode(channel),
        "mcp": _api.Mcp(channel),
    }
    for name, value in names.items():
        setattr(dicode_sdk, name, value)
    return names


def _watch(permissions: dict[str, Any], folder: str, channel: Channel) -> Seen:
    from dicode_sdk import _refused
    from dicode_sdk._seen import Seen, watch_environment

    seen = Seen(lambda found: channel.try_send({"used": found}))
    grants = _refused.Grants(permissions, folder)
    _refused.watch(grants, lambda text: _api.tell("security", text), seen.note)
    watch_environment(permissions.get("env") or (), seen.note)
    return seen


def perform(script: str, names: dict[str, Any], code: str | None = None) -> _result.Outcome:
    """Run the script and its ``main``; every way it can end is an outcome.

    ``code`` is the script's text as the server has it in force; without it the file is read.
    """
    folder = os.path.dirname(script)
    try:
        value = _script.execute(script, names, code)
    except SystemExit as error:
        if error.code is None or error.code == 0:
            value = _script.result_of(sys.modules["__main__"])
        else:
            return _result.exited(error)
    except KeyboardInterrupt:
        # Python then ends the process by the signal itself, as for any script.
        raise
    except _channel.Suspended:
        return _result.Outcome()
    except BaseException as error:
        if _asked_in_a_group(error):
            return _result.Outcome()
        from dicode_sdk import _failure

        _flush()
        if code is not None:
            _failure.show_code(script, code)
        return _failure.failed(error, folder, SDK_FOLDER)
    try:
        return _result.returned(value)
    except _wire.NotJson as error:
        return _result.not_json(error)


def _asked_in_a_group(error: BaseException) -> bool:
    """Tell whether tasks of a group ended because one of them asked."""
    if not isinstance(error, BaseExceptionGroup):
        return False
    rest: Any = error.split(_channel.Suspended)[1]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return rest is None


def _join_threads() -> None:
    """Wait for the script's threads, as Python does, while they can still reach the server."""
    threading = sys.modules.get("threading")
    if threading is None:
        return
    own = threading.current_thread()
    for thread in threading.enumerate():
        if thread is not own and not thread.daemon:
            thread.join()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass

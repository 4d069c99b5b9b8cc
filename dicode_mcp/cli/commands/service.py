"""``dicode service install|status|remove``: the server as a service of its user.

The file is written only where a manager answers, and never over one that is not ours.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

from dicode_mcp.cli import failures, managers, process
from dicode_mcp.cli.commands.server import server_arguments
from dicode_mcp.cli.managers import Manager
from dicode_mcp.cli.session import Session
from dicode_mcp.cli.units import Definition, is_ours
from dicode_mcp.errors import Code, DicodeError

_AFTER_DRAIN_S = 25
"""What the end of a server takes beyond its drain: TERM, KILL, open connections, and room."""
_PAUSE = 0.05


def install(session: Session, args: argparse.Namespace) -> int:
    """Write the service's file, start the service, and return once the server answers."""
    manager = managers.own_manager(os.environ)
    text = manager.text(_definition(session, args))
    if args.print:
        return _print(session, manager, text)
    _require(manager)
    old = _read(manager.file)
    if old is not None and not is_ours(old) and not args.force:
        raise failures.usage(
            f"{manager.file} is there and was not written by this command",
            "look at it; --force overwrites it, --print shows what would be written",
        )
    _refuse_other_server(session, manager)
    if old != text:
        _write(manager.file, text)
    os.makedirs(session.places.data_dir, mode=0o700, exist_ok=True)
    manager.apply(changed=old is not None and old != text)
    pid = _wait_until_it_answers(session, manager)
    done = "installed" if old is None else "unchanged" if old == text else "updated"
    facts = {"manager": manager.name, "file": manager.file, "action": done, "pid": pid}
    words = {
        "installed": f"wrote {manager.file} and started the service",
        "updated": f"wrote {manager.file} anew and restarted the service",
        "unchanged": f"{manager.file} is as it should be; the service runs",
    }
    return _tell(session, facts, [f"{words[done]} (pid {pid})"], manager.advice())


def _print(session: Session, manager: Manager, text: str) -> int:
    if session.as_json:
        session.terminal.show_json({"manager": manager.name, "file": manager.file, "text": text})
    else:
        session.terminal.out.write(text)
    return failures.OK


def status(session: Session, args: argparse.Namespace) -> int:
    """Say whether the service is installed and running; exit code 1 when it is not."""
    manager = managers.own_manager(os.environ)
    _require(manager)
    text, state = _read(manager.file), manager.state()
    facts: dict[str, Any] = {
        "manager": manager.name,
        "file": manager.file,
        "installed": text is not None,
        "active": state.active,
        "failed": state.failed,
    }
    if state.pid:
        facts["pid"] = state.pid
    if text is None:
        lines = [f"not installed: there is no {manager.file}"]
        advice = ["`dicode service install` makes it"]
    else:
        running = f"running (pid {state.pid})" if state.active else "not running"
        lines = [f"{manager.file}: {'failed' if state.failed else running}"]
        advice = [*([] if is_ours(text) else ["that file is not ours"]), *manager.advice()]
    _tell(session, facts, lines, advice)
    return failures.OK if text is not None and state.active else failures.FAILED


def remove(session: Session, args: argparse.Namespace) -> int:
    """End the service and remove its file; the data dir stays."""
    manager = managers.own_manager(os.environ)
    _require(manager)
    text = _read(manager.file)
    facts: dict[str, Any] = {"manager": manager.name, "file": manager.file}
    if text is None:
        return _tell(session, {**facts, "removed": False}, [], ["no service is installed"])
    if not is_ours(text) and not args.force:
        raise failures.usage(
            f"{manager.file} was not written by `dicode service install`",
            "look at it; --force removes it all the same",
        )
    manager.withdraw()
    os.unlink(manager.file)
    manager.forget()
    lines = [f"ended the service and removed {manager.file}"]
    kept = [f"the data dir stays: {session.places.data_dir}"]
    return _tell(session, {**facts, "removed": True}, lines, kept)


def _definition(session: Session, args: argparse.Namespace) -> Definition:
    """Pin what a terminal would find by search: a service has another folder and environment."""
    # Only here: reading a configuration whole costs more than most commands.
    from dicode_mcp.config import load_config

    places, env = session.places, os.environ
    home = env.get("HOME") or os.path.expanduser("~")
    named = Path(places.named_config) if places.named_config else None
    config = load_config(named, environ=env, cwd=Path.cwd(), home=Path(home))
    words = list(server_arguments(args))
    if config.file is None and not args.source:
        for source in config.sources:
            words += ["--source", str(source.path)]
    if args.port is None and env.get("DICODE_PORT"):
        words += ["--port", env["DICODE_PORT"]]
    pinned = places._replace(named_config=str(config.file.absolute()) if config.file else None)
    return Definition(
        command=tuple(process.daemon_command(pinned, words)),
        folder=home,
        path=_search_path(env),
        log=places.log,
        stop_seconds=ceil(config.execution.drain) + _AFTER_DRAIN_S,
    )


def _search_path(env: Mapping[str, str]) -> str:
    """Give ``PATH`` as it is here, without what means something else in another folder."""
    folders = [part for part in env.get("PATH", "").split(os.pathsep) if os.path.isabs(part)]
    return os.pathsep.join(dict.fromkeys(folders)) or os.defpath


def _require(manager: Manager) -> None:
    why = manager.unavailable()
    if why is not None:
        raise DicodeError(
            Code.NOT_SUPPORTED,
            f"no service manager answers here ({manager.name}: {why})",
            hint="in a container let the container run `dicode serve` (docs/how-to/docker.md);"
            " elsewhere log in as the user itself, not by su or sudo."
            " `dicode serve --detach` runs it until the next restart of the machine",
        )


def _refuse_other_server(session: Session, manager: Manager) -> None:
    found = process.holder(session.places)
    if found is None or manager.state().pid == found.pid:
        return
    raise DicodeError(
        Code.ALREADY_RUNNING,
        f"a server that is no service runs for {session.places.data_dir} (pid {found.pid})",
        hint="run `dicode stop`, then this command again",
        data={"pid": found.pid},
    )


def _wait_until_it_answers(session: Session, manager: Manager) -> int:
    deadline = time.monotonic() + process.START_SECONDS
    while time.monotonic() < deadline:
        state = manager.state()
        hello = process.is_answering(session.places)
        if hello is not None and state.pid == hello.pid:
            return hello.pid
        if state.failed:
            break
        time.sleep(_PAUSE)
    raise _did_not_start(manager, session.places.log)


def _did_not_start(manager: Manager, log: str) -> DicodeError:
    where = manager.advice()[0]
    words = manager.last_words(log)
    if words:
        return DicodeError(
            Code.INVALID_CONFIG, f"the service's server did not start: {words}", hint=where
        )
    return failures.unreachable("the service was started but its server does not answer", where)


def _read(path: str) -> str | None:
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return None


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        draft = f"{path}.{os.getpid()}"
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError as error:
        raise DicodeError(
            Code.INVALID_CONFIG, f"cannot write {path}: {error.strerror}", hint="check its folder"
        ) from None


def _tell(session: Session, facts: dict[str, Any], lines: list[str], notes: list[str]) -> int:
    if session.as_json:
        session.terminal.show_json(facts)
        return failures.OK
    for line in lines:
        session.terminal.say(line)
    for note in notes:
        session.terminal.note(note)
    return failures.OK

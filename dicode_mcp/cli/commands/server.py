"""Commands on the server itself: ``serve stop restart status``."""

from __future__ import annotations

import argparse
import os
from typing import Any, cast

from dicode_mcp.cli import failures, managers, process
from dicode_mcp.cli.client import Hello, version_note
from dicode_mcp.cli.managers import Manager
from dicode_mcp.cli.process import Start
from dicode_mcp.cli.render import duration, one_line
from dicode_mcp.cli.session import Session
from dicode_mcp.errors import Code, DicodeError


def serve(session: Session, args: argparse.Namespace) -> int:
    """Run the server in place of this process, or in the background until it answers."""
    start = Start(server_arguments(args), os.getcwd())
    _refuse_second(session)
    if args.detach:
        return _start(session, start)
    if os.path.isdir(session.places.data_dir):
        process.remember_start(session.places, start)
    session.terminal.out.flush()
    command = process.daemon_command(session.places, start.arguments)
    os.execv(command[0], command)


def _refuse_second(session: Session) -> None:
    found = process.holder(session.places)
    if found is not None:
        raise DicodeError(
            Code.ALREADY_RUNNING,
            f"a server already runs for {session.places.data_dir} (pid {found.pid})",
            hint="use it, or `dicode restart` to start it anew",
            data={"pid": found.pid},
        )


def server_arguments(args: argparse.Namespace) -> tuple[str, ...]:
    """Give the server's options among the command's, paths made absolute."""
    words: list[str] = []
    for name in ("port", "host", "log_level"):
        value = getattr(args, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    for path in cast("list[str]", args.source or []):
        words += ["--source", os.path.abspath(os.path.expanduser(path))]
    if args.no_http:
        words.append("--no-http")
    return tuple(words)


def _start(session: Session, start: Start) -> int:
    started = _say_started(session, process.start_detached(session.places, start))
    if not session.as_json:
        session.terminal.note(f"its log: {session.places.log}")
    return started


def _say_started(session: Session, hello: Hello) -> int:
    facts = {"pid": hello.pid, "version": hello.version, "data_dir": session.places.data_dir}
    if session.as_json:
        session.terminal.show_json(facts)
        return failures.OK
    session.terminal.say(f"the server runs (pid {hello.pid}, data dir {facts['data_dir']})")
    return failures.OK


def stop(session: Session, args: argparse.Namespace) -> int:
    """End the server; nothing to do is a success too."""
    found = process.stop(session.places, args.timeout)
    if session.as_json:
        session.terminal.show_json(
            {"stopped": found is not None, **({"pid": found.pid} if found else {})}
        )
    elif found is None:
        session.terminal.note(f"no server was running for {session.places.data_dir}")
    else:
        session.terminal.say(f"the server (pid {found.pid}) has ended")
    return failures.OK


def restart(session: Session, args: argparse.Namespace) -> int:
    """End the server and start it in the background, as last time unless options are given."""
    given = server_arguments(args)
    found = process.holder(session.places)
    service = managers.managing(os.environ, found.pid) if found else None
    if service is not None:
        return _restart_service(session, service, given)
    remembered = process.remembered_start(session.places)
    start = Start(given, os.getcwd())
    places = session.places
    if remembered is not None and not given:
        start, config = remembered
        places = places._replace(named_config=places.named_config or config)
    if not os.path.isdir(start.cwd):
        start = start._replace(cwd=os.getcwd())
    process.stop(places, args.timeout)
    return _start(session._replace(places=places), start)


def _restart_service(session: Session, service: Manager, given: tuple[str, ...]) -> int:
    """Let the manager restart what it runs, or it would be a server in the background after."""
    if given:
        raise failures.usage(
            f"the server is a service of {service.name}, which starts it as its file says",
            "give the options to `dicode service install`; `dicode restart` without any restarts",
        )
    service.restart()
    return _say_started(session, process.wait_until_answers(session.places))


def status(session: Session, args: argparse.Namespace) -> int:
    """Show what the server says of itself."""
    with session.connect() as client:
        version = client.hello.version
        result = client.call("get_status")
    if session.as_json:
        session.terminal.show_json(result)
        return failures.OK
    for line in _lines(result):
        session.terminal.say(line)
    if note := version_note(version):
        session.terminal.note(note)
    return failures.OK


def _lines(status: dict[str, Any]) -> list[str]:
    lines = [
        f"dicode {status.get('version', '?')}, pid {status.get('pid', '?')}, up"
        f" {duration(1000 * int(status.get('uptime_seconds', 0)))}",
        f"data dir: {status.get('data_dir', '?')}",
    ]
    for key, label in (("config_file", "config"), ("url", "url")):
        if status.get(key):
            lines.append(f"{label}: {status[key]}")
    lines.append(f"tasks: {_counts(status.get('tasks'))} in {status.get('sources', 0)} source(s)")
    lines.append(f"slots: {_counts(status.get('slots'))}")
    lines.append(f"runs in the last 24 h: {_counts(status.get('runs_last_24h'))}")
    if status.get("asking"):
        lines.append(f"waiting for an answer: {status['asking']} (dicode runs --status waiting)")
    lines += [_runtime(r) for r in cast("list[dict[str, Any]]", status.get("runtimes", []))]
    lines.append(_sandbox(status.get("sandbox")))
    lines += [f"note: {one_line(str(note))}" for note in status.get("notes", [])]
    return lines


def _counts(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    counts = cast("dict[str, int]", value)
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "none"


def _runtime(runtime: dict[str, Any]) -> str:
    state = "available" if runtime.get("available") else "not available"
    message = f": {one_line(str(runtime['message']))}" if runtime.get("message") else ""
    return f"runtime {runtime.get('name')}: {state}{message}"


def _sandbox(value: Any) -> str:
    facts = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    state = "enforced" if facts.get("enforced") else "NOT enforced"
    message = f": {one_line(str(facts['message']))}" if facts.get("message") else ""
    return f"permissions: {state}{message}"

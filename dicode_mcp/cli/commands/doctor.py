"""``dicode doctor``: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
from typing import Any, NamedTuple, cast

from dicode_mcp import __version__
from dicode_mcp.cli import failures, process
from dicode_mcp.cli.client import Client
from dicode_mcp.cli.process import Holder
from dicode_mcp.cli.session import Session
from dicode_mcp.errors import DicodeError

DEFAULT_PORT = 8080
PYTHON = (3, 11)


class Check(NamedTuple):
    """One finding. ``state`` is ``ok``, ``warn`` (works, know this) or ``fail``."""

    name: str
    state: str
    message: str
    hint: str | None = None


def doctor(session: Session, args: argparse.Namespace) -> int:
    """Check this machine; exit code 1 when something must be mended."""
    checks = run_checks(session)
    failed = any(check.state == "fail" for check in checks)
    terminal = session.terminal
    if session.as_json:
        found = [{k: v for k, v in c._asdict().items() if v is not None} for c in checks]
        terminal.show_json({"ok": not failed, "checks": found})
        return failures.FAILED if failed else failures.OK
    for check in checks:
        colour = {"ok": "green", "warn": "yellow", "fail": "red"}[check.state]
        terminal.say(
            f"{terminal.style(f'{check.state:<4}', colour)}  {check.name}: {check.message}"
        )
        if check.hint:
            terminal.say(f"      {check.hint}")
    return failures.FAILED if failed else failures.OK


def run_checks(session: Session) -> list[Check]:
    """Make all checks, in the order in which one depends on another."""
    places = session.places
    data_dir = check_data_dir(places.data_dir)
    checks = [check_python(), check_program("uv"), check_program("deno"), data_dir]
    if data_dir.state == "fail":
        return checks
    found = process.holder(places)
    status = _ask(session)
    checks.append(check_server(found, status, places.data_dir))
    if isinstance(status, Answer):
        checks.append(check_version(status.version))
    checks.append(check_port(found))
    checks += check_sandbox(status.result if isinstance(status, Answer) else None)
    return checks


class Answer(NamedTuple):
    """What the server said of itself."""

    version: str
    result: dict[str, Any]


def _ask(session: Session) -> Answer | str:
    try:
        with Client.connect(session.places.socket) as client:
            return Answer(client.hello.version, client.call("get_status"))
    except (DicodeError, failures.ToolFailed) as error:
        return error.message


def check_python() -> Check:
    """Check the interpreter that runs this command, which runs the server too."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < PYTHON:
        return Check("python", "fail", f"{version} is too old", "install Python 3.11 or newer")
    return Check("python", "ok", f"{version} ({sys.executable})")


def check_program(name: str) -> Check:
    """Check that a runtime's program is here and starts."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    path = beside if os.access(beside, os.X_OK) else shutil.which(name)
    needed_by = {"uv": "Python tasks with a dependency block", "deno": "Deno tasks"}[name]
    if path is None:
        return Check(
            name, "warn", f"not found; {needed_by} cannot run", f"pip install {name}, or install it"
        )
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, timeout=20, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return Check(name, "warn", f"{path} does not start; {needed_by} cannot run", "reinstall it")
    if done.returncode != 0:
        return Check(
            name, "warn", f"{path} --version fails; {needed_by} cannot run", "reinstall it"
        )
    first = (done.stdout.decode("utf-8", "replace").splitlines() or [""])[0]
    return Check(name, "ok", f"{first.strip()} ({path})")


def check_data_dir(path: str) -> Check:
    """Check that the data dir, or the nearest folder above it, can be written."""
    existing = path
    while not os.path.exists(existing) and os.path.dirname(existing) != existing:
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        return Check(
            "data dir", "fail", f"{existing} is not a folder", "choose another: --data-dir"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(
            "data dir",
            "fail",
            f"{existing} cannot be written by this user",
            "change its owner, or choose another with --data-dir",
        )
    note = "" if existing == path else " (will be made)"
    free = shutil.disk_usage(existing).free
    if free < 200 * 1024 * 1024:
        return Check(
            "data dir", "warn", f"{path}: only {free // 1024**2} MiB free", "make room on the disk"
        )
    return Check("data dir", "ok", f"{path}{note}")


def check_server(found: Holder | None, status: Answer | str, data_dir: str) -> Check:
    """Check that the server, if one holds the data dir, answers."""
    if isinstance(status, Answer):
        return Check("server", "ok", f"answers (pid {status.result.get('pid', '?')})")
    if found is None:
        return Check(
            "server", "warn", f"none runs for {data_dir}", "`dicode serve --detach` starts one"
        )
    return Check(
        "server",
        "fail",
        f"pid {found.pid} holds the data dir but does not answer: {status}",
        "`dicode restart`, or look at server.log in the data dir",
    )


def check_version(server: str) -> Check:
    """Check that the server runs the code that is installed."""
    if server == __version__:
        return Check("version", "ok", f"server and command line are both {server}")
    return Check(
        "version",
        "fail",
        f"the server is {server or 'unknown'}, this command is {__version__}",
        "`dicode restart` brings the server up to date",
    )


def check_port(found: Holder | None) -> Check:
    """Check that the HTTP port is the server's own, or free for it."""
    host, port = (found.host, found.port) if found else (None, DEFAULT_PORT)
    if found is not None:
        if port is None:
            return Check("http", "warn", "the server serves no HTTP (--no-http)")
        if _connects(host or "127.0.0.1", port):
            return Check("http", "ok", f"the server listens on {host or '127.0.0.1'}:{port}")
        return Check("http", "fail", f"nothing answers on port {port}", "look at server.log")
    if _connects("127.0.0.1", DEFAULT_PORT):
        return Check(
            "http",
            "warn",
            f"port {DEFAULT_PORT}, the default, is taken by another program",
            "start with `dicode serve --port N`",
        )
    return Check("http", "ok", f"port {DEFAULT_PORT}, the default, is free")


def _connects(host: str, port: int) -> bool:
    address = "127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host
    try:
        with socket.create_connection((address, port), timeout=2.0):
            return True
    except OSError:
        return False


def check_sandbox(status: dict[str, Any] | None) -> list[Check]:
    """Say plainly whether the permissions of tasks hold, and of each thing what would make it."""
    facts = cast("dict[str, Any]", (status or {}).get("sandbox") or {})
    each = [
        Check(
            str(one["name"]),
            "ok" if one["enforced"] else "warn",
            str(one["message"]),
            one.get("remedy"),
        )
        for one in cast("list[dict[str, Any]]", facts.get("facilities") or [])
    ]
    if not facts:
        return [Check("sandbox", "warn", "not known: no server answers that has tried it")]
    if facts.get("enforced"):
        whole = Check("sandbox", "ok", str(facts.get("message") or "permissions are enforced"))
    else:
        told = str(facts.get("message") or "the permissions that tasks declare are not enforced")
        whole = Check("sandbox", "warn", told, "run only tasks you trust")
    return [whole, *each]

"""``dicode run``: start a task, wait for its end, show what came of it."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.asking import Asker
from dicode_mcp.cli.client import Client
from dicode_mcp.cli.commands.logs import read_lines, say_it_goes_on
from dicode_mcp.cli.commands.runs import (
    ENDED,
    GOOD,
    headline,
    is_over,
    log_text,
    note_next,
    show_end,
)
from dicode_mcp.cli.commands.tasks import params_lines
from dicode_mcp.cli.render import Terminal, clean
from dicode_mcp.cli.session import Session
from dicode_mcp.errors import DicodeError

WAIT_STEP = 50.0
"""Seconds one call waits for the end; the server allows 55, in whole seconds."""


def run(session: Session, args: argparse.Namespace) -> int:
    """Run a task; exit code 0 for a good end, 1 for a failure or a wait that was too short."""
    if args.help:
        return _help(session, args)
    return start(session, args, "run_task", _arguments(args))


def start(session: Session, args: argparse.Namespace, tool: str, arguments: dict[str, Any]) -> int:
    """Start a run by a tool, wait for its end as the options say, and show it."""
    with session.connect() as client:
        started = client.call(tool, {**arguments, "wait_seconds": 0})
        if args.no_wait:
            _show_started(session, started)
            return failures.OK
        try:
            ended = _until_end(session, client, started, args)
        except KeyboardInterrupt:
            say_it_goes_on(session.terminal, str(started["run_id"]))
            raise
        except DicodeError:
            session.terminal.note(f"lost the server while run {started['run_id']} was on")
            raise
        if not session.as_json:
            ended = _whole(client, ended)
    _show(session, ended, followed=args.follow)
    return failures.OK if ended.get("status") in GOOD else failures.FAILED


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    if args.id is None:
        raise failures.usage("which task?", "dicode run ID k=v …; `dicode list` shows the ids")
    if args.wait is not None and args.wait < 0:
        raise failures.usage("--wait must not be negative")
    arguments: dict[str, Any] = {"id": args.id}
    params = read_params(args.params, args.param_json)
    if params:
        arguments["params"] = params
    if args.input is not None:
        arguments["input"] = read_input(args.input)
    if args.idempotency_key:
        arguments["idempotency_key"] = args.idempotency_key
    if args.priority is not None:
        arguments["priority"] = args.priority
    return arguments


def read_params(pairs: list[str], json_pairs: list[str]) -> dict[str, Any]:
    """Read ``k=v`` as text (the server knows the types) and ``k=JSON`` as what it says."""
    params: dict[str, Any] = {}
    for pair in pairs:
        _put(params, pair, "k=v", text=True)
    for pair in json_pairs:
        _put(params, pair, "--param-json k=JSON", text=False)
    return params


def _put(params: dict[str, Any], pair: str, form: str, *, text: bool) -> None:
    name, equals, value = pair.partition("=")
    if not equals or not name:
        raise failures.usage(
            f"a param is missing its {'name' if equals else '='}; write it as {form}",
            "quote it if it holds spaces: 'text=hello world'",
        )
    if name in params:
        raise failures.usage(f"the param {name} is given twice", "give it once")
    try:
        params[name] = value if text else json.loads(value)
    except ValueError as error:
        raise failures.usage(
            f"--param-json {name}: not valid JSON ({error})",
            f"quote it for the shell, or give text as {name}=…",
        ) from None


def read_input(name: str) -> Any:
    """Read the input from a file or, for ``-``, standard input: JSON if it is, else text."""
    try:
        if name == "-":
            raw = sys.stdin.buffer.read()
        else:
            with open(os.path.expanduser(name), "rb") as file:
                raw = file.read()
    except OSError as error:
        raise failures.usage(f"cannot read --input {name}: {error.strerror}") from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise failures.usage(
            f"--input {name} is not UTF-8 text", "encode it, for example as base64"
        ) from None
    try:
        return json.loads(text)
    except ValueError as error:
        if name.endswith(".json"):
            raise failures.usage(f"--input {name} is not valid JSON: {error}") from None
        return text


def _until_end(
    session: Session, client: Client, started: dict[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    run_id = str(started["run_id"])
    if args.follow:
        return follow_to_end(session.terminal, client, run_id, args.wait)
    asker = Asker(session.terminal, client, run_id)
    deadline = None if args.wait is None else time.monotonic() + args.wait
    state = started
    while not is_over(state):
        if state.get("status") in ENDED:
            run_id = note_next(session.terminal, state)
            asker = Asker(session.terminal, client, run_id)
        left = WAIT_STEP if deadline is None else max(0.0, deadline - time.monotonic())
        seconds = math.ceil(min(WAIT_STEP, left))
        state = client.call("get_run", {"run_id": run_id, "wait_seconds": seconds}, waits=seconds)
        if state.get("status") == "waiting":
            asker.look()
        if deadline is not None and time.monotonic() >= deadline:
            break
    return state


def _whole(client: Client, run: dict[str, Any]) -> dict[str, Any]:
    """Fetch what a tool's answer had no room for; a person asked for the value, not its size."""
    if not (run.get("return_value_truncated") or run.get("output_truncated")):
        return run
    full = client.read(f"dicode://runs/{run['run_id']}")
    return {**run, **{key: full[key] for key in ("return_value", "output") if key in full}}


def follow_to_end(
    terminal: Terminal, client: Client, run_id: str, wait: float | None
) -> dict[str, Any]:
    """Show a run's log as it grows until it has ended, asking what it asks; gives the run.

    Of a run that is tried again the logs of the further attempts are shown too.
    """
    deadline = None if wait is None else time.monotonic() + wait
    while True:
        state = _follow_one(terminal, client, run_id, deadline)
        late = deadline is not None and time.monotonic() >= deadline
        if is_over(state) or state.get("status") not in ENDED or late:
            return state
        run_id = note_next(terminal, state)


def _follow_one(
    terminal: Terminal, client: Client, run_id: str, deadline: float | None
) -> dict[str, Any]:
    asker = Asker(terminal, client, run_id)
    lines = read_lines(client, run_id, follow=True, until=deadline, at_question=asker.look)
    for line in lines:
        terminal.note(log_text(terminal, line))
    return client.call("get_run", {"run_id": run_id})


def _show_started(session: Session, started: dict[str, Any]) -> None:
    if session.as_json:
        session.terminal.show_json(started)
        return
    session.terminal.say(str(started["run_id"]))
    session.terminal.note(f"next: dicode logs -f {started['run_id']}")


def _show(session: Session, state: dict[str, Any], *, followed: bool) -> None:
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(state)
    elif state.get("status") in ENDED:
        show_end(terminal, state, with_logs=not followed)
    else:
        terminal.note(headline(terminal, state) + "; it goes on")
        terminal.note(f"next: dicode logs -f {state['run_id']}")


def _help(session: Session, args: argparse.Namespace) -> int:
    parser = cast("argparse.ArgumentParser", args.parser)
    if args.id is None:
        parser.print_help(session.terminal.out)
        return failures.OK
    task = session.call("get_task", id=args.id)
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(task)
        return failures.OK
    terminal.say(f"dicode run {task['id']} [k=v …]")
    if task.get("description"):
        terminal.say(clean(str(task["description"])))
    for line in params_lines(cast("dict[str, Any]", task.get("spec") or {}), terminal):
        terminal.say(line)
    terminal.say("`dicode run --help` shows the options of run itself")
    return failures.OK

"""The entry point ``dicode``: parse, find the command, turn what went wrong into an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.parser import build_parser
from dicode_mcp.cli.places import find_places
from dicode_mcp.cli.render import Terminal, open_terminal
from dicode_mcp.cli.session import Session
from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import DicodeError

Handler = Callable[[Session, argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code (0 ok, 1 failed, 2 usage, 3 not reachable)."""
    terminal = open_terminal(sys.stdout, sys.stderr, os.environ, SystemClock())
    try:
        args = _parse(sys.argv[1:] if argv is None else argv)
        code = _guarded(terminal, args)
        terminal.out.flush()
        return code
    except KeyboardInterrupt:
        return failures.INTERRUPTED
    except BrokenPipeError:
        # Point stdout elsewhere, or the interpreter complains when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.BROKEN_PIPE


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = build_parser()
    args, extra = parser.parse_known_args(argv)
    chosen = cast("argparse.ArgumentParser", getattr(args, "parser", parser))
    if not hasattr(args, "handler"):
        chosen.print_help(sys.stderr)
        raise SystemExit(failures.USAGE)
    if extra and hasattr(args, "params"):
        # argparse gives up on positionals after an option; params may stand anywhere.
        args.params += [word for word in extra if not word.startswith("-")]
        extra = [word for word in extra if word.startswith("-")]
    if extra:
        chosen.error(f"unknown argument: {extra[0]}")
    return args


def _guarded(terminal: Terminal, args: argparse.Namespace) -> int:
    # On the standard output of `dicode mcp` nothing but JSON-RPC may stand, errors included.
    as_json = bool(getattr(args, "json", False)) and args.handler != "mcp:mcp"
    try:
        places = find_places(
            getattr(args, "data_dir", None),
            getattr(args, "config", None),
            os.environ,
            os.getcwd(),
        )
        return _handler(args)(Session(places, terminal, as_json), args)
    except failures.ToolFailed as error:
        _report(terminal, as_json, error.result, error.message, error.hint)
        return failures.FAILED
    except DicodeError as error:
        _report(terminal, as_json, {"error": error.as_dict()}, error.message, error.hint)
        return failures.exit_code(error)


def _handler(args: argparse.Namespace) -> Handler:
    module, _, name = str(args.handler).partition(":")
    return cast(
        "Handler", getattr(importlib.import_module(f"dicode_mcp.cli.commands.{module}"), name)
    )


def _report(
    terminal: Terminal, as_json: bool, result: dict[str, object], message: str, hint: str | None
) -> None:
    if as_json:
        terminal.show_json(result)
        return
    terminal.note(f"dicode: {message}")
    if hint:
        terminal.note(f"  {hint}")


if __name__ == "__main__":
    sys.exit(main())

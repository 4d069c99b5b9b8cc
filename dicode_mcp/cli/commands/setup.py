"""What helps to set things up: ``schema mcp-config demo``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.session import Session

_SCHEMAS = {"task": "dicode_mcp.spec.schema", "config": "dicode_mcp.config.schema"}


def schema(session: Session, args: argparse.Namespace) -> int:
    """Print the JSON Schema of ``task.yaml`` or ``dicode.yaml``."""
    # These load more than the rest of the command line, and need no running server.
    module = importlib.import_module(_SCHEMAS[args.of])
    make = cast("Callable[[], dict[str, Any]]", getattr(module, f"{args.of}_schema"))
    session.terminal.say(json.dumps(make(), indent=2, ensure_ascii=False))
    return failures.OK


def demo(session: Session, args: argparse.Namespace) -> int:
    """Run the demonstration."""
    main = cast("Callable[[], int]", importlib.import_module("dicode_mcp.cli.demo").main)
    return main()


_FILES = {
    "claude": ".mcp.json in your project",
    "cursor": ".cursor/mcp.json in your project, or ~/.cursor/mcp.json",
    "vscode": ".vscode/mcp.json in your project",
}


def mcp_config(session: Session, args: argparse.Namespace) -> int:
    """Print the configuration for a client; where to put it goes to standard error."""
    client = args.client or "claude"
    command, *rest = launch_command(os.environ)
    words = [*rest, "mcp", *_places_arguments(args, session)]
    terminal = session.terminal
    terminal.say(json.dumps(client_config(client, command, words), indent=2))
    terminal.note(f"put this into {_FILES[client]}")
    if client == "claude":
        line = " ".join(_quoted(word) for word in (command, *words))
        terminal.note(f"or run: claude mcp add dicode -- {line}")
    return failures.OK


def client_config(client: str, command: str, arguments: list[str]) -> dict[str, Any]:
    """Give the file that makes ``client`` start ``dicode mcp``."""
    server = {"command": command, "args": arguments}
    if client == "cursor":
        return {"mcpServers": {"dicode": server}}
    key = "servers" if client == "vscode" else "mcpServers"
    return {key: {"dicode": {"type": "stdio", **server}}}


def launch_command(env: Mapping[str, str]) -> list[str]:
    """Give the words that start ``dicode``: by name where any program finds it, else by path.

    Inside an activated virtual environment the name means nothing to a client outside it.
    """
    ours = os.path.join(os.path.dirname(sys.executable), "dicode")
    if "VIRTUAL_ENV" not in env:
        found = _on_path("dicode", env)
        if found and os.path.realpath(found) == os.path.realpath(ours):
            return ["dicode"]
    if os.access(ours, os.X_OK):
        return [ours]
    return [sys.executable, "-m", "dicode_mcp.cli.main"]


def _on_path(name: str, env: Mapping[str, str]) -> str | None:
    for folder in env.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, name)
        if folder and os.access(path, os.X_OK):
            return path
    return None


def _places_arguments(args: argparse.Namespace, session: Session) -> list[str]:
    words: list[str] = []
    if hasattr(args, "data_dir"):
        words += ["--data-dir", session.places.data_dir]
    if session.places.named_config:
        words += ["--config", session.places.named_config]
    return words


def _quoted(word: str) -> str:
    plain = word.replace("/", "").replace("-", "").replace(".", "").replace("_", "")
    return word if plain.isalnum() else "'" + word.replace("'", "'\\''") + "'"

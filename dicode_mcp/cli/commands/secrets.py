"""Commands on secrets: ``secrets set list delete rotate``. A value is never an argument."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.render import one_line, relative, table
from dicode_mcp.cli.session import Session

_SHOWN = 3


def set_secret(session: Session, args: argparse.Namespace) -> int:
    """Set a secret from a prompt, standard input, a variable or a file."""
    given: dict[str, Any] = {"name": args.name}
    if args.from_env is not None:
        given["from_env"] = args.from_env
    elif args.from_file is not None:
        given["from_file"] = args.from_file
    else:
        given["value"] = _value(args.name)
    answer = session.call("secrets_set", **given)
    if session.as_json:
        session.terminal.show_json(answer)
        return failures.OK
    done = "is set" if answer["created"] else "has a new value"
    users = cast("list[str]", answer.get("used_by", []))
    used = f"; used by {', '.join(users)}" if users else "; no task asks for it yet"
    session.terminal.say(one_line(f"{answer['name']} {done}{used}"))
    return failures.OK


def _value(name: str) -> str:
    if sys.stdin.isatty():
        first = getpass.getpass(f"value of {name}: ")
        if not first:
            raise failures.usage("no value was given", "type it, or pipe it in")
        if getpass.getpass("once more: ") != first:
            raise failures.usage("the two values differ; nothing was set")
        return first
    text = sys.stdin.read()
    # What `echo` and editors add is no part of the secret.
    return text.removesuffix("\n").removesuffix("\r")


def list_secrets(session: Session, args: argparse.Namespace) -> int:
    """Show names, who uses them and when they were set."""
    answer = session.call("secrets_list")
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(answer)
        return failures.OK
    rows = [
        [str(s["name"]), relative(s.get("updated_at"), terminal.clock), _users(s)]
        for s in cast("list[dict[str, Any]]", answer["secrets"])
    ]
    rows += [
        [str(s["name"]), str(s["provider"]), _users(s)]
        for s in cast("list[dict[str, Any]]", answer.get("elsewhere", []))
    ]
    if rows:
        for line in table(["SECRET", "SET", "USED BY"], rows, terminal.width):
            terminal.say(line)
    else:
        terminal.note("no secrets yet: dicode secrets set NAME")
    for s in cast("list[dict[str, Any]]", answer.get("missing", [])):
        terminal.note(one_line(f"missing: {s['name']}, used by {_users(s)}"))
    return failures.OK


def delete(session: Session, args: argparse.Namespace) -> int:
    """Forget a secret."""
    answer = session.call("secrets_delete", name=args.name)
    if session.as_json:
        session.terminal.show_json(answer)
        return failures.OK
    session.terminal.say(one_line(f"{answer['name']} is gone"))
    broken = cast("list[str]", answer.get("breaks", []))
    if broken:
        session.terminal.note(one_line(f"runs will fail without it: {', '.join(broken)}"))
    return failures.OK


def rotate(session: Session, args: argparse.Namespace) -> int:
    """Change the master key."""
    answer = session.call("secrets_rotate")
    if session.as_json:
        session.terminal.show_json(answer)
        return failures.OK
    old = ", ".join(cast("list[str]", answer["old_key_ids"]))
    session.terminal.say(
        one_line(f"{answer['resealed']} values are sealed with the new key {answer['key_id']}")
    )
    session.terminal.note(one_line(f"gone: {old}; save the new one: dicode backup --help"))
    session.terminal.note("inputs, answers and kv follow while the server serves")
    return failures.OK


def _users(secret: dict[str, Any]) -> str:
    users = cast("list[str]", secret.get("used_by", []))
    total = int(secret.get("used_by_count", len(users)))
    shown = ", ".join(users[:_SHOWN])
    return (f"{shown} and {total - _SHOWN} more" if total > _SHOWN else shown) or "-"

"""Commands on keys: ``keys create list revoke``. A key is shown once, when it is made."""

from __future__ import annotations

import argparse
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.render import one_line, relative, table
from dicode_mcp.cli.session import Session


def create(session: Session, args: argparse.Namespace) -> int:
    """Make a key; it alone goes to standard output, so that it can be piped on."""
    given: dict[str, Any] = {"name": args.name, "scopes": args.scopes}
    if args.expires is not None:
        given["expires"] = args.expires
    made = session.call("keys_create", **given)
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(made)
        return failures.OK
    terminal.say(one_line(made["key"]))
    until = f", until {made['expires_at']}" if "expires_at" in made else ""
    terminal.note(one_line(f"{made['name']} ({made['id']}): {', '.join(made['scopes'])}{until}"))
    terminal.note("it is not shown again; whoever has it sends: Authorization: Bearer KEY")
    return failures.OK


def list_keys(session: Session, args: argparse.Namespace) -> int:
    """Show the keys, the newest first."""
    answer = session.call("keys_list")
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(answer)
        return failures.OK
    keys = cast("list[dict[str, Any]]", answer["keys"])
    rows = [
        [
            str(key["id"]),
            str(key["name"]),
            str(key["state"]),
            relative(key.get("last_used_at"), terminal.clock),
            str(key.get("expires_at", "-")),
            ", ".join(key["scopes"]),
        ]
        for key in keys
    ]
    if not rows:
        terminal.note("no keys yet: dicode keys create --name NAME --scopes read")
        return failures.OK
    head = ["KEY", "NAME", "STATE", "LAST USED", "EXPIRES", "SCOPES"]
    for line in table(head, rows, terminal.width):
        terminal.say(line)
    return failures.OK


def revoke(session: Session, args: argparse.Namespace) -> int:
    """End a key at once."""
    answer = session.call("keys_revoke", key=args.key)
    if session.as_json:
        session.terminal.show_json(answer)
    else:
        session.terminal.say(one_line(f"{answer['name']} ({answer['id']}) is revoked"))
    return failures.OK

"""The command on the owner's passphrase: ``passphrase set``. It is never an argument."""

from __future__ import annotations

import argparse
import getpass
import sys

from dicode_mcp.cli import failures
from dicode_mcp.cli.session import Session


def set_passphrase(session: Session, args: argparse.Namespace) -> int:
    """Set the passphrase from a prompt or standard input."""
    answer = session.call("passphrase_set", passphrase=_typed())
    if session.as_json:
        session.terminal.show_json(answer)
        return failures.OK
    ended = int(answer.get("sessions_ended", 0))
    session.terminal.say("the passphrase is set: log in at /login of the server's address")
    if ended:
        session.terminal.note(f"{ended} sessions ended")
    return failures.OK


def _typed() -> str:
    if sys.stdin.isatty():
        first = getpass.getpass("new passphrase: ")
        if not first:
            raise failures.usage("no passphrase was given", "type it, or pipe it in")
        if getpass.getpass("once more: ") != first:
            raise failures.usage("the two differ; nothing was set")
        return first
    text = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not text:
        raise failures.usage("no passphrase was given", "pipe it in as one line")
    return text

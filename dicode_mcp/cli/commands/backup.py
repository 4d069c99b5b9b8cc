"""Commands that save and bring back a data dir: ``backup`` and ``restore``.

They work without a server, so another process does it: the command line does not know the store.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from dicode_mcp.cli import places
from dicode_mcp.cli.session import Session


def backup(session: Session, args: argparse.Namespace) -> int:
    """Save the data dir, in place of this process."""
    words = ["backup"]
    config = session.places.named_config or places.find_config(
        os.environ, os.environ.get("HOME") or os.path.expanduser("~"), os.getcwd()
    )
    if config and os.path.isfile(config):
        words += ["--config", config]
    if args.logs:
        words.append("--logs")
    _become(session, words, args)


def restore(session: Session, args: argparse.Namespace) -> int:
    """Bring a data dir back in place of this process."""
    _become(session, ["restore"], args)


def _become(session: Session, words: list[str], args: argparse.Namespace) -> NoReturn:
    force = ["--force"] if args.force else []
    become(session, [*words, *force, *common(session, args.file, args.key)])


def common(session: Session, file: str | None, key: str | None) -> list[str]:
    """Give the arguments that all of its commands take."""
    words = ["--data-dir", session.places.data_dir]
    if key is not None:
        words += ["--key", os.path.abspath(key)]
    if session.as_json:
        words.append("--json")
    return [*words, "--", os.path.abspath(file)] if file is not None else words


def become(session: Session, words: list[str]) -> NoReturn:
    """Do it in place of this process."""
    session.terminal.out.flush()
    command = [sys.executable, "-P", "-m", "dicode_mcp.backup", *words]
    os.execv(command[0], command)

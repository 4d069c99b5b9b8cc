"""The command on the audit log: ``audit``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TextIO, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.commands.backup import become, common
from dicode_mcp.cli.commands.runs import read_since
from dicode_mcp.cli.commands.tasks import check_limit, pages
from dicode_mcp.cli.render import one_line, relative, table
from dicode_mcp.cli.session import Session

_EXPORT_PAGE = 500
_SHOWN = 20


def audit(session: Session, args: argparse.Namespace) -> int:
    """Show the audit log, write it to a file, or have it checked."""
    check_limit(args.limit)
    if args.offline or args.backup or args.key:
        return _verify_aside(session, args)
    if args.verify:
        return _verify(session)
    wanted = {
        "action": args.action,
        "actor": args.actor,
        "target": args.target,
        "since": read_since(args.since, session.terminal.clock),
        "cursor": args.cursor,
    }
    if args.export is not None:
        return _export(session, args.export, wanted, args.limit)
    return _show(session, wanted, args.limit)


def _show(session: Session, wanted: dict[str, Any], limit: int | None) -> int:
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(session.call("get_audit", limit=limit, **wanted))
        return failures.OK
    entries, more = pages(session, "get_audit", "entries", limit or _SHOWN, **wanted)
    if not entries:
        terminal.note("no entries match")
        return failures.OK
    names = ("actor", "surface", "action", "target", "outcome")
    rows = [
        [relative(str(entry["at"]), terminal.clock), *(one_line(str(entry[n])) for n in names)]
        for entry in entries
    ]
    headers = ["WHEN", "ACTOR", "BY", "ACTION", "TARGET", "OUTCOME"]
    for line in table(headers, rows, terminal.width, flexible=4):
        terminal.say(line)
    if more:
        terminal.note(f"more: --limit N for more at once, or --cursor {more}")
    return failures.OK


def _verify_aside(session: Session, args: argparse.Namespace) -> int:
    """Have it checked by a process of its own, in place of this one."""
    if not args.verify or (args.key and not (args.offline or args.backup)):
        raise failures.usage("--offline, --backup and --key go with --verify: dicode audit --help")
    become(session, ["audit", *common(session, args.backup, args.key)])


def _verify(session: Session) -> int:
    told = session.call("get_audit", verify=True)
    terminal = session.terminal
    if session.as_json:
        terminal.show_json(told)
    elif told["intact"]:
        span = f", from {told['since']} to {told['until']}" if "since" in told else ""
        terminal.say(f"intact: {told['checked']} entries{span}")
    else:
        terminal.say(one_line(f"BROKEN: {told['problem']}"))
        for at in cast("list[dict[str, Any]]", told["entries"]):
            named = " ".join(str(at[key]) for key in ("at", "actor", "action", "target"))
            terminal.say(one_line(f"  entry {at['id']}: {named}"))
    return failures.OK if told["intact"] else failures.FAILED


# ── Export ──


def _export(session: Session, path: str, wanted: dict[str, Any], limit: int | None) -> int:
    if path == "-":
        _write(session, sys.stdout, wanted, limit)
        return failures.OK
    draft = f"{path}.{os.getpid()}.part"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            count = _write(session, file, wanted, limit)
        os.replace(draft, path)
    except OSError as error:
        raise failures.usage(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
    session.terminal.note(f"{count} entries are in {path}")
    return failures.OK


def _write(session: Session, file: TextIO, wanted: dict[str, Any], limit: int | None) -> int:
    count = 0
    for entry in _entries(session, wanted, limit):
        file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")
        count += 1
    return count


def _entries(
    session: Session, wanted: dict[str, Any], limit: int | None
) -> Iterator[dict[str, Any]]:
    """Give all that matches, oldest first, holding one page of it."""
    given = {name: value for name, value in wanted.items() if value is not None}
    left = limit
    with session.connect() as client:
        while True:
            size = _EXPORT_PAGE if left is None else min(_EXPORT_PAGE, left)
            page = client.call("get_audit", {**given, "export": True, "limit": size})
            entries = cast("list[dict[str, Any]]", page["entries"])
            yield from entries
            left = None if left is None else left - len(entries)
            given["cursor"] = page.get("next_cursor")
            if not given["cursor"] or left == 0:
                return

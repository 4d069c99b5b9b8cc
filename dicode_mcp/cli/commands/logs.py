"""The log of a run, as it is and as it grows: ``logs``, and what ``run --follow`` shows."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.client import Client
from dicode_mcp.cli.commands.runs import ENDED, headline, log_text
from dicode_mcp.cli.session import Session

SHORTEST, LONGEST = 0.02, 0.25
"""Seconds between two looks at a log that is followed: short while lines come, then longer."""
PAGE = 1000


def logs(session: Session, args: argparse.Namespace) -> int:
    """Show a run's log; with ``--follow`` until the run has ended."""
    if args.tail is not None and args.tail < 1:
        raise failures.usage("--tail must be at least 1")
    terminal = session.terminal
    if session.as_json and not args.follow:
        terminal.show_json(
            session.call("get_logs", run_id=args.run, tail=args.tail, level=args.level)
        )
        return failures.OK
    with session.connect() as client:
        lines = read_lines(client, args.run, tail=args.tail, level=args.level, follow=args.follow)
        for line in lines:
            # A follower may be a program that waits for this line.
            if session.as_json:
                terminal.show_json(line)
            else:
                terminal.say(log_text(terminal, line))
            if args.follow:
                terminal.out.flush()
        if args.follow and not session.as_json:
            run = client.call("get_run", {"run_id": args.run})
            terminal.note(headline(terminal, run))
    return failures.OK


def read_lines(
    client: Client,
    run_id: str,
    *,
    tail: int | None = None,
    level: str | None = None,
    follow: bool = False,
    until: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Give a run's lines in order, and with ``follow`` those to come until it has ended.

    ``until`` (monotonic seconds) bounds the following.
    """
    arguments: dict[str, Any] = {"run_id": run_id}
    if level:
        arguments["level"] = level
    first = {"tail": tail} if tail else {"limit": PAGE}
    page = client.call("get_logs", arguments | first)
    after, pause = 0, SHORTEST
    while True:
        lines = cast("list[dict[str, Any]]", page.get("lines", []))
        yield from lines
        after = max([after, *(int(line["seq"]) for line in lines)])
        more = page.get("next_after")
        after = max(after, int(more or 0))
        if more is None:
            if not follow or page.get("status") in ENDED:
                return
            if until is not None and time.monotonic() >= until:
                return
            pause = SHORTEST if lines else min(LONGEST, pause * 2)
            time.sleep(pause)
        page = client.call("get_logs", {**arguments, "after": after, "limit": PAGE})

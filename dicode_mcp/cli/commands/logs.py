"""The log of a run, as it is and as it grows: ``logs``, and what ``run --follow`` shows."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.client import Client
from dicode_mcp.cli.commands.runs import ENDED, headline, log_text
from dicode_mcp.cli.render import Terminal
from dicode_mcp.cli.session import Session

LONGEST_S = 20.0
"""Seconds after which a log that is followed is looked at though nothing was told of it."""
UNTOLD_S = 0.25
"""The same where the server tells nothing."""
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
        try:
            _show_lines(session, client, args)
        except KeyboardInterrupt:
            if args.follow:
                say_it_goes_on(terminal, args.run)
            raise
        if args.follow and not session.as_json:
            run = client.call("get_run", {"run_id": args.run})
            terminal.note(headline(terminal, run))
    return failures.OK


def _show_lines(session: Session, client: Client, args: argparse.Namespace) -> None:
    terminal = session.terminal
    lines = read_lines(client, args.run, tail=args.tail, level=args.level, follow=args.follow)
    for line in lines:
        if session.as_json:
            terminal.show_json(line)
        else:
            terminal.say(log_text(terminal, line))
        if args.follow:
            # A follower may be a program that waits for this line.
            terminal.out.flush()


def say_it_goes_on(terminal: Terminal, run_id: str) -> None:
    """Tell whoever stops following that the run does not stop with it."""
    terminal.note(f"\nrun {run_id} goes on: `dicode logs -f {run_id}`, `dicode cancel {run_id}`")


def read_lines(
    client: Client,
    run_id: str,
    *,
    tail: int | None = None,
    level: str | None = None,
    follow: bool = False,
    until: float | None = None,
    at_question: Callable[[], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Give a run's lines in order, and with ``follow`` those to come until it has ended.

    ``until`` (monotonic seconds) bounds the following. ``at_question`` is called when the run is
    found waiting for an answer, again and again while it is.
    """
    if follow:
        # Before the first look, so that nothing falls between the two.
        client.watch(f"dicode://runs/{run_id}", f"dicode://runs/{run_id}/logs")
    arguments: dict[str, Any] = {"run_id": run_id}
    if level:
        arguments["level"] = level
    first = {"tail": tail} if tail else {"limit": PAGE}
    page = client.call("get_logs", arguments | first)
    after = 0
    while True:
        lines = cast("list[dict[str, Any]]", page.get("lines", []))
        yield from lines
        after = max([after, *(int(line["seq"]) for line in lines)])
        more = page.get("next_after")
        after = max(after, int(more or 0))
        if more is None:
            if not follow or page.get("status") in ENDED:
                return
            if at_question is not None and page.get("status") == "waiting":
                at_question()
            left = LONGEST_S if until is None else until - time.monotonic()
            if left <= 0:
                return
            client.changed(min(left, LONGEST_S if client.watching else UNTOLD_S))
        page = client.call("get_logs", {**arguments, "after": after, "limit": PAGE})

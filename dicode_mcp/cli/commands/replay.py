"""``dicode replay``: start a run again with what it was started with, as it was or edited."""

from __future__ import annotations

import argparse
from typing import Any

from dicode_mcp.cli.commands.run import read_input, read_params, start
from dicode_mcp.cli.session import Session


def replay(session: Session, args: argparse.Namespace) -> int:
    """Replay a run; exit code 0 for a good end, 1 for a failure or a wait that was too short."""
    arguments: dict[str, Any] = {"run_id": args.run}
    params = read_params(args.params, args.param_json)
    if params:
        arguments["params"] = params
    if args.input is not None:
        arguments["input"] = read_input(args.input)
    if args.idempotency_key:
        arguments["idempotency_key"] = args.idempotency_key
    return start(session, args, "replay_run", arguments)

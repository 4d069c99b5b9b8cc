"""The process behind ``backup``, ``restore``, ``audit --offline``: arguments in, a result out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dicode_mcp.backup.auditing import Checked, check_audit
from dicode_mcp.backup.restoring import Asked, restore
from dicode_mcp.backup.saving import Wanted, save
from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError

_USAGE = frozenset({Code.INVALID_ARGUMENT, Code.CONFLICT, Code.DATA_DIR, Code.ALREADY_RUNNING})


def main(argv: Sequence[str] | None = None) -> int:
    """Back up, restore, or check an audit log.

    Exit codes: 0 done, 1 it failed or the log is not intact, 2 it was asked for wrongly.
    """
    options = _parser().parse_args(argv)
    try:
        if options.what == "backup":
            told = _backup(options)
            lines = _saved(told)
        elif options.what == "audit":
            told = _audited(options)
            lines = _checked(told)
        else:
            told = _restore(options)
            lines = _restored(told)
    except DicodeError as error:
        return _complain(error, options.json)
    if options.json:
        print(json.dumps(told))
    else:
        print("\n".join(lines))
    return 0 if told.get("intact", True) else 1


def _backup(options: argparse.Namespace) -> dict[str, Any]:
    wanted = Wanted(
        data_dir=options.data_dir,
        file=options.file,
        key=options.key,
        config=options.config,
        logs=options.logs,
        force=options.force,
    )
    return save(wanted, dict(os.environ), SystemClock())


def _restore(options: argparse.Namespace) -> dict[str, Any]:
    asked = Asked(options.data_dir, options.file, options.key, options.force)
    return restore(asked, SystemClock())


def _audited(options: argparse.Namespace) -> dict[str, Any]:
    return check_audit(Checked(options.data_dir, options.file, options.key), dict(os.environ))


def _checked(told: dict[str, Any]) -> list[str]:
    if told["intact"]:
        span = f", from {told['since']} to {told['until']}" if "since" in told else ""
        return [f"intact: {told['checked']} entries{span}"]
    lines = [f"BROKEN: {told['problem']}"]
    for at in told["entries"]:
        named = " ".join(str(at[key]) for key in ("at", "actor", "action", "target"))
        lines.append("".join(c for c in f"  entry {at['id']}: {named}" if c.isprintable()))
    return lines


def _saved(told: dict[str, Any]) -> list[str]:
    logs = "" if told["logs"] else ", without the runs' logs (--logs adds them)"
    lines = [f"{told['file']}: {told['bytes']} bytes, {told['files']} files{logs}"]
    if "key" in told:
        lines.append(f"{told['key']}: the master key {told.get('key_id', '')}; keep it elsewhere")
    elif "key_id" in told:
        lines.append(
            f"the master key {told['key_id']} is not in it: without that the secrets are lost"
            " (--key FILE saves it, apart)"
        )
    return lines


def _restored(told: dict[str, Any]) -> list[str]:
    lines = [f"{told['data_dir']} is as it was at {told['created_at']}"]
    if "before" in told:
        lines.append(f"what was there before is in {told['before']}")
    if "config" in told:
        lines.append(f"the configuration is in {told['config']}")
    if told["key"] == "missing":
        lines.append(
            f"the server will not start without the master key {told['key_id']}: put it into"
            f" {told['data_dir']}/master.key (mode 600), or set DICODE_MASTER_KEY"
        )
    lines.append(
        "keys that were revoked since then are active again: dicode keys list shows them, and"
        " dicode keys revoke NAME ends one"
    )
    lines.append("runs that were waiting then will start with the server: dicode serve")
    return lines


def _complain(error: DicodeError, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": error.as_dict()}))
    hint = f"\n  {error.hint}" if error.hint else ""
    print(f"dicode: {error.message}{hint}", file=sys.stderr)
    return 2 if error.code in _USAGE else 1


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dicode")
    commands = parser.add_subparsers(dest="what", required=True)
    for name in ("backup", "restore", "audit"):
        command = commands.add_parser(name, allow_abbrev=False)
        command.add_argument("--data-dir", type=_path, required=True)
        command.add_argument("--key", type=_path)
        command.add_argument("--json", action="store_true")
        if name == "audit":
            command.add_argument("file", type=_path, nargs="?")
            continue
        command.add_argument("file", type=_path)
        command.add_argument("--force", action="store_true")
        if name == "backup":
            command.add_argument("--config", type=_path)
            command.add_argument("--logs", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The command: ``python -m bench [--quick] [--only NAME …] [--json FILE] [--list]``.

Exit codes: 0 every row was measured (whatever the verdicts), 1 one could not be, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Result
from bench.report import Failed, Setting, document, heading, table
from bench.row import Plan, Row
from bench.rows import ALL, select

LATEST = Path(__file__).parent / "results" / "latest.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    options = _parser().parse_args(argv)
    if options.list:
        for row in ALL:
            print(f"{row.name:12} {row.what}")
        return 0
    try:
        rows = select(options.only)
    except KeyError as error:
        known = ", ".join(row.name for row in ALL)
        print(f"bench: no row named {error.args[0]}; there are: {known}", file=sys.stderr)
        return 2
    setting = _setting(options.quick)
    began = time.monotonic()
    results, failed = _measure(rows, options.quick)
    setting = replace(
        setting, seconds=time.monotonic() - began, load_after=round(os.getloadavg()[0], 2)
    )
    print(f"\n{heading(setting)}\n\n{table(results)}")
    for one in failed:
        print(f"{one.name}: NOT MEASURED: {one.why}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document(setting, results, failed), indent=1) + "\n")
    print(f"as JSON: {options.json}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="only these rows")
    parser.add_argument("--quick", action="store_true", help="fewer samples, within a minute")
    parser.add_argument("--json", type=Path, default=LATEST, metavar="FILE")
    parser.add_argument("--list", action="store_true", help="show the rows and stop")
    return parser


def _setting(quick: bool) -> Setting:
    return Setting(
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        quick=quick,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        cores=os.cpu_count() or 1,
        load_before=round(os.getloadavg()[0], 2),
    )


def _measure(rows: Sequence[Row], quick: bool) -> tuple[list[Result], list[Failed]]:
    """Measure row by row; one that fails does not take the others with it."""
    results: list[Result] = []
    failed: list[Failed] = []
    for row in rows:
        print(f"bench: {row.name} … ", end="", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix=f"dicode-bench-{row.name}-") as room:
                results.extend(row.measure(Plan(quick, Path(room))))
        except Exception as error:
            failed.append(Failed(row.name, f"{type(error).__name__}: {error}"))
        print(f"{time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return results, failed


if __name__ == "__main__":
    sys.exit(main())

"""The official conformance suite as a process: run it, read what it found."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path

from node_tools import command, environment

SUITE_S = 100.0
_SCENARIO = re.compile(r"^server-(.+)-\d{4}-\d\d-\d\dT")


@dataclass(frozen=True)
class Check:
    """One check of one scenario; ``status`` is SUCCESS FAILURE WARNING SKIPPED or INFO."""

    scenario: str
    id: str
    status: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """One run of the suite."""

    exit_code: int
    summary: str
    checks: tuple[Check, ...]

    def ids(self, *statuses: str) -> set[tuple[str, str]]:
        """Give scenario and id of the checks with these statuses."""
        return {(c.scenario, c.id) for c in self.checks if c.status in statuses}

    def told(self) -> str:
        """Give the suite's own summary, and each check that did not pass."""
        bad = [c for c in self.checks if c.status in ("FAILURE", "WARNING")]
        lines = [f"{c.status} {c.scenario}: {c.id}: {c.message}" for c in bad]
        return "\n".join([self.summary, *lines])


async def run_suite(package: str, url: str, folder: Path, *options: str) -> Verdict:
    """Run the suite against ``url``/mcp; results go to ``folder``."""
    line = command(package, "server", "--url", f"{url}/mcp", "-o", str(folder), *options)
    process = await asyncio.create_subprocess_exec(
        *line,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    try:
        async with asyncio.timeout(SUITE_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    _, mark, summary = text.partition("=== SUMMARY ===")
    return Verdict(process.returncode or 0, mark + summary or text[-4000:], _checks(folder))


def _checks(folder: Path) -> tuple[Check, ...]:
    found: list[Check] = []
    for file in sorted(folder.glob("*/checks.json")):
        match = _SCENARIO.match(file.parent.name)
        scenario = match.group(1) if match else file.parent.name
        for check in json.loads(file.read_text()):
            found.append(
                Check(scenario, check["id"], check["status"], check.get("errorMessage") or "")
            )
    return tuple(found)

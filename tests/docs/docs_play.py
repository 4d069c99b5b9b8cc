"""Does what a page says, in a home folder of its own, and compares what is printed.

Blocks that name a file in their first line are written there; ``console`` blocks are run. In the
expected output ``…`` stands for anything, a line of it alone for any lines, and run ids, times,
durations, pids and hashes may differ. In a command ``RUN`` is the newest run that was shown.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from docs_pages import Block, Step, blocks_of, steps

_READS = frozenset({"list", "runs", "get", "logs", "status"})
_PATIENCE_S = 20.0
"""How long the page's "a moment later" may last: what only reads is read again."""
_RUN_ID = re.compile(r"\b01[0-9a-z]{24}\b")
_VARIABLE = (
    (r"\b01[0-9a-z]{24}\b", r"01[0-9a-z]{24}"),
    (r"\d+ ms|\d+(?:\.\d+)? s\b", r"(?:\d+ ms|\d+(?:\.\d+)? s)"),
    (r"\d\d:\d\d:\d\d\.\d\d\d", r"\d\d:\d\d:\d\d\.\d\d\d"),
    (r"pid \d+", r"pid \d+"),
    (r"127\.0\.0\.1:\d+", r"127\.0\.0\.1:\d+"),
    (r"\b[0-9a-f]{64}\b", r"[0-9a-f]{64}"),
    (r"hash: [0-9a-f]{6}\b", r"hash: [0-9a-f]{6}"),
    (r"\bnow\b", r"(?:now|\d+ \w+ ago)"),
    (r"(?:~|/home/you)/", r"(?:~|/\S*?)/"),
    ("…", ".*"),
)


class Play:
    """One reader who does what a page says."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._cwd = home
        shims = home / ".bin"
        shims.mkdir()
        shim = shims / "dicode"
        shim.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dicode_mcp.cli.main "$@"\n'
        )
        shim.chmod(0o755)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DICODE_", "VIRTUAL_ENV"))}
        env |= {"HOME": str(home), "PATH": f"{shims}:{env.get('PATH', '')}", "DICODE_PORT": "0"}
        self._env = env
        self._newest = ""

    def page(self, page: Path) -> int:
        """Play a page; gives how many commands were run."""
        count = 0
        for block in blocks_of(page):
            if block.language == "console":
                for step in steps(block):
                    self._do(block, step)
                    count += 1
            elif block.file:
                self._write(block.file, block.text)
        return count

    def end(self) -> None:
        """Stop the server, if one runs."""
        self._run("dicode stop")

    def _write(self, name: str, text: str) -> None:
        path = self._cwd / name.replace("~", str(self._home), 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self._settle()

    def _settle(self) -> None:
        """Have the server look at its folders now, however slow this machine is."""
        for source in re.findall(r'"name": *"([^"]+)"', self._run("dicode source list --json")):
            self._run(f"dicode source sync {shlex.quote(source)}")

    def _do(self, block: Block, step: Step) -> None:
        words = step.command.split()
        if words[0] == "cd":
            self._cwd = self._cwd / words[1].replace("~", str(self._home), 1)
            return
        command = re.sub(r"\bRUN\b", self._newest, step.command)
        deadline = time.monotonic() + (_PATIENCE_S if words[1:2] and words[1] in _READS else 0)
        while True:
            said = self._run(command)
            wrong = differences(step.expected, said)
            if not wrong or time.monotonic() > deadline:
                break
        self._newest = max([self._newest, *_RUN_ID.findall(said)])
        assert not wrong, f"{block.place}: $ {step.command}\n{wrong}\nprinted:\n{said}"
        if words[0] != "dicode":
            self._settle()

    def _run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout


def differences(expected: tuple[str, ...], said: str) -> str:
    """Say which expected lines were not printed and which printed ones not expected."""
    if not expected:
        return ""
    left = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    missing: list[str] = []
    for line in expected:
        if line.strip() == "…":
            continue
        pattern = _pattern(" ".join(line.split()))
        found = next((one for one in left if pattern.fullmatch(one)), None)
        if found is None:
            missing.append(line)
        else:
            left.remove(found)
    extra = [] if any(line.strip() == "…" for line in expected) else left
    return "\n".join(
        [*(f"not printed: {m}" for m in missing), *(f"not expected: {e}" for e in extra)]
    )


_SPLIT = re.compile("|".join(f"({found})" for found, _ in _VARIABLE))


def _pattern(line: str) -> re.Pattern[str]:
    out: list[str] = []
    at = 0
    for found in _SPLIT.finditer(line):
        assert found.lastindex is not None
        out += [re.escape(line[at : found.start()]), _VARIABLE[found.lastindex - 1][1]]
        at = found.end()
    return re.compile("".join([*out, re.escape(line[at:])]))

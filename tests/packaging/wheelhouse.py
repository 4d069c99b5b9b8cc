"""What is built from this repository, and a new environment with it installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "dicode_mcp": ROOT / "dicode_mcp",
    "dicode_runtimes": ROOT / "runtimes/dicode_runtimes",
    "dicode_sdk": ROOT / "sdk/dicode_sdk",
    "dicode_agents": ROOT / "agents/dicode_agents",
}


class Built(NamedTuple):
    """The two distributions."""

    wheel: Path
    sdist: Path


class Installed(NamedTuple):
    """A virtual environment that has the wheel, and a home of its own."""

    venv: Path
    home: Path

    @property
    def python(self) -> str:
        return str(self.venv / "bin/python")

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, as a user who knows nothing of the repository."""
        env = {
            "HOME": str(self.home),
            "PATH": f"{self.venv / 'bin'}:{os.defpath}",
            "LANG": "C.UTF-8",
            "DICODE_PORT": "0",
        }
        return subprocess.run(
            [str(self.venv / "bin" / words[0]), *words[1:]],
            env=env,
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, and the wheel from that sdist, so that the sdist is known to be whole."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Install the wheel into a new environment that finds only the dependencies elsewhere."""
    root = tmp_path_factory.mktemp("installed here")
    venv, home = root / "venv", root / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    found = Installed(venv, home)
    pip = [sys.executable, "-m", "pip", "--python", found.python, "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", str(built.wheel)], check=True
    )
    (site,) = (venv / "lib").glob("python*/site-packages")
    # A path in a .pth file is searched after this environment's own packages, and .pth files
    # found there (our own editable install) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    yield found
    found.run("dicode", "stop")

"""A task that tries everything, in a cage: as root and as nobody in particular, Python and Deno."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.testing.cages import this_machine
from dicode_runtimes.deno.program import DenoProgram

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="there is a cage on Linux only"),
]

ROOM = Path(__file__).parent / "escape_room.py"
PROJECT = ROOM.parents[2]
SOMEBODY = 54321
FEWEST = {"python": 120, "deno": 100, "bare-deno": 100}
DENO = DenoProgram(os.environ)


def python_of_others() -> str | None:
    """Find an interpreter like this one that another user may start."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (
        os.path.realpath(sys.executable),
        *(f"{p}/{name}" for p in ("/usr/local/bin", "/usr/bin")),
    ):
        tried = [path, "-c", "import encodings"]
        try:
            done = subprocess.run(
                tried, user=SOMEBODY, group=SOMEBODY, extra_groups=[], cwd="/", capture_output=True
            )
        except OSError:
            continue
        if done.returncode == 0:
            return path
    return None


@pytest.fixture
def folder() -> Generator[Path]:
    made = Path(tempfile.mkdtemp(prefix="escape-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def command(kind: str, who: str, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Give how to start the room as somebody, and with what."""
    words = [str(ROOM), str(folder), kind]
    if who == "self":
        return [sys.executable, *words], {}
    python = python_of_others()
    if python is None:
        pytest.skip("no interpreter here that another user may start")
    os.chown(folder, SOMEBODY, SOMEBODY)
    env = {
        "PATH": os.pathsep.join([os.path.dirname(DENO.path or "/usr/bin"), os.defpath]),
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    options: dict[str, Any] = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": [], "env": env}
    return [python, *words], options


@pytest.mark.parametrize("who", ["self", "another_user"])
@pytest.mark.parametrize(
    "kind", ["python", "deno", "bare-deno", "python-waiting", "deno-waiting", "bare-deno-waiting"]
)
def test_a_task_that_tries_everything_gets_nothing(kind: str, who: str, folder: Path) -> None:
    if who == "another_user" and os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    if "deno" in kind and not DENO.health.ok:
        pytest.skip("no deno here")
    words, options = command(kind, who, folder)
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd="/", **options)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    if this_machine().error or (not this_machine().separates and this_machine().landlock < 3):
        assert told["status"] == "failure", told
        assert "sandbox" in told["error"], told
        return
    assert told["status"] == "success", told
    assert told["uid"] == (SOMEBODY if who == "another_user" else os.geteuid())
    came_through = {k: v for k, v in told["tries"].items() if v.startswith("ESCAPED")}
    assert came_through == {}
    assert len(told["tries"]) >= FEWEST[kind.removesuffix("-waiting")]
    assert told["waited_for"] == (1 if kind.endswith("-waiting") else 0)
    assert told["visits"] == [], "somebody called on a listener outside"
    assert told["canary"], "the file outside was changed"
    assert told["folder"] == [], "the task's own folder was changed"
    assert told["left"] == [], "a process outlived the run"

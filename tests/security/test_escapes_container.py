"""The same tries where the kernel grants no namespaces, as in most containers.

There Landlock and seccomp are all there is: what exists can be seen, but nothing of it opened,
changed or called.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from dicode_mcp.testing.cages import this_machine
from dicode_mcp.testing.others import as_somebody, python_of_others
from dicode_runtimes.deno.program import DenoProgram

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or this_machine().landlock < 6 or bool(this_machine().told),
        reason="not all of it can be had here",
    ),
]

ROOM = Path(__file__).parent / "escape_room.py"
DENO = DenoProgram(os.environ)
SEEN = {
    "existence_of_a_file",
    "real_path_of_a_link",
    "programs_in_sight",
    "name_of_the_machine",
    "descriptors_of_the_first_process",
    "the_server_s_modules",
}
"""What can be seen there, by name or number alone; docs/explanation/security.md says so."""


@pytest.fixture
def folder() -> Generator[Path]:
    made = Path(tempfile.mkdtemp(prefix="escape-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize("who", ["self", "another_user"])
@pytest.mark.parametrize("kind", ["python", "deno", "bare-deno"])
def test_without_namespaces_a_task_sees_more_and_gets_nothing(
    kind: str, who: str, folder: Path
) -> None:
    if "deno" in kind and not DENO.health.ok:
        pytest.skip("no deno here")
    python: str | None = sys.executable
    options = {}
    if who == "another_user":
        if os.geteuid() != 0:
            pytest.skip("only root can become somebody else")
        python = python_of_others()
        options = as_somebody(folder, os.path.dirname(DENO.path or "/usr/bin"))
    if python is None:
        pytest.skip("no interpreter here that another user may start")
    words = [python, str(ROOM), str(folder), f"{kind}-container"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd="/", **options)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["status"] == "success", told
    came_through = {k: v for k, v in told["tries"].items() if v.startswith("ESCAPED")}
    assert {k: v for k, v in came_through.items() if k not in SEEN} == {}
    assert len(told["tries"]) >= 100
    assert told["visits"] == [], "somebody called on a listener outside"
    assert told["canary"], "the file outside was changed"
    assert told["folder"] == [], "the task's own folder was changed"
    assert told["left"] == [], "a process outlived the run"

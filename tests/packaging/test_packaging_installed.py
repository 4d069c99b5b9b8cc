"""The wheel as a user has it: installed in an environment of its own, far from the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from wheelhouse import PACKAGES, ROOT, Installed

import dicode_mcp
import dicode_sdk

pytestmark = pytest.mark.slow


def test_the_packages_come_from_the_wheel(installed: Installed) -> None:
    for package in PACKAGES:
        done = installed.run("python", "-c", f"import {package}; print({package}.__file__)")
        assert done.stdout.startswith(str(installed.venv)), done.stdout + done.stderr


def test_the_command_tells_its_version_and_the_schema(installed: Installed) -> None:
    assert installed.run("dicode", "--version").stdout == f"dicode {dicode_mcp.__version__}\n"
    schema = json.loads(installed.run("dicode", "schema", "task").stdout)
    assert schema["title"] == "dicode task"
    assert "runtime" in schema["required"]


def test_a_bundled_example_runs_on_a_server_in_the_background(installed: Installed) -> None:
    (site,) = (installed.venv / "lib").glob("python*/site-packages")
    tasks = installed.home / "dicode-tasks"
    shutil.copytree(site / "dicode_agents/examples", tasks)
    started = installed.run("dicode", "serve", "--detach")
    assert started.returncode == 0, started.stderr
    try:
        done = installed.run("dicode", "run", "hello", "name=wheel")
        assert (done.returncode, done.stdout) == (0, '{"greeting": "Hello, wheel!"}\n'), done.stderr
        assert installed.run("dicode", "run", "failing").returncode == 1
        status = json.loads(installed.run("dicode", "status", "--json").stdout)
        assert status["version"] == dicode_mcp.__version__
    finally:
        assert installed.run("dicode", "stop").returncode == 0


SCRIPT = """\
from dicode_sdk import DicodeError, dicode, kv, log, output, params

reveal_type(params.all())
reveal_type(kv.list("a"))
reveal_type(dicode.run_task("other"))
log.info("count", 1)
output.text(1)
kv.put("a", 1)
raise DicodeError
"""


def test_a_type_checker_sees_the_types_of_the_sdk(installed: Installed, tmp_path: Path) -> None:
    script = tmp_path / "task.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "pyright"),
            "--outputjson",
            "--pythonpath",
            installed.python,
            str(script),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    said = [(d["range"]["start"]["line"] + 1, d["severity"], d["message"]) for d in found]
    revealed = [message for _, severity, message in said if severity == "information"]
    assert revealed == [
        'Type of "params.all()" is "dict[str, Any]"',
        'Type of "kv.list("a")" is "list[str]"',
        'Type of "dicode.run_task("other")" is "dict[str, Any]"',
    ]
    assert {line for line, severity, _ in said if severity == "error"} >= {7, 8}
    assert not [s for s in said if "could not be resolved" in s[2] or "stub" in s[2].lower()]


def test_what_the_sdk_exports_is_what_its_page_names() -> None:
    page = (ROOT / "docs/reference/sdk-python.md").read_text()
    for name in dicode_sdk.__all__:
        if name != "NAMES":
            assert f"`{name}`" in page or f"`dicode_sdk.{name}`" in page, name
    assert set(dicode_sdk.NAMES) <= set(dicode_sdk.__all__)

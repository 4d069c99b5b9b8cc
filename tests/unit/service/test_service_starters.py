"""Templates of new tasks: their own tests pass, and they hold nothing to quote wrongly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicode_mcp.service.starters import TRIGGERS, default_value, files_of
from dicode_mcp.spec.loader import validate_text

_RUN = """
import task_test
for name, test in sorted(vars(task_test).items()):
    if name.startswith("test_"):
        test()
        print(name)
"""


def write(folder: Path, template: str, trigger: str) -> None:
    files = files_of(
        template=template,
        trigger=trigger,
        value=default_value(trigger, "a/b") or "upstream",
        name="A: 'b' # \\ \"c\"",
        description="Ünïcode: yes\nand a second line",
    )
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_the_tests_of_a_python_template_pass(tmp_path: Path, trigger: str) -> None:
    write(tmp_path, "python", trigger)
    done = subprocess.run(
        [sys.executable, "-c", _RUN], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test_")


@pytest.mark.parametrize("template", ["python", "deno"])
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_the_manifest_of_a_template_is_valid(tmp_path: Path, template: str, trigger: str) -> None:
    write(tmp_path, template, trigger)
    assert validate_text((tmp_path / "task.yaml").read_text()) == []

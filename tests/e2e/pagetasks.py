"""A real server on folders of tasks with pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class PageServer(NamedTuple):
    """Where it serves, and the command line on it."""

    url: str
    env: dict[str, str]
    folder: Path

    def dicode(self, *words: str) -> str:
        """Run a command; gives what it prints."""
        return _dicode(self.folder, self.env, *words).stdout

    def json(self, *words: str) -> Any:
        """Run a command; gives what it prints as JSON."""
        return json.loads(self.dicode(*words, "--json"))

    def runs(self, task: str) -> list[dict[str, Any]]:
        """List the runs of a task."""
        return self.json("runs", task)["runs"]


def _dicode(folder: Path, env: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dicode_mcp.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(env),
        cwd=folder,
        check=False,
    )


@contextmanager
def serving_pages(folder: Path, tasks: Mapping[str, Mapping[str, str]]) -> Generator[PageServer]:
    """Write tasks (files by name) and serve them while the block lasts."""
    for task, files in tasks.items():
        for name, text in files.items():
            file = folder / "tasks" / task / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    env = {k: v for k, v in os.environ.items() if not k.startswith("DICODE_")}
    env |= {"DICODE_DATA_DIR": str(folder / "data"), "HOME": str(folder)}
    tasks_folder = str(folder / "tasks")
    started = _dicode(folder, env, "serve", "--detach", "--port", "0", "--source", tasks_folder)
    assert started.returncode == 0, started.stderr
    try:
        url = json.loads(_dicode(folder, env, "status", "--json").stdout)["url"]
        yield PageServer(url, env, folder)
    finally:
        _dicode(folder, env, "stop")

"""Starting a script of the tests as another user, which only root can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SOMEBODY = 54321


def python_of_others() -> str | None:
    """Find an interpreter like this one that another user may start."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [f"{path}/{name}" for path in ("/usr/local/bin", "/usr/bin")]
    for path in (os.path.realpath(sys.executable), *places):
        try:
            done = subprocess.run(
                [path, "-c", "import encodings"],
                user=SOMEBODY,
                group=SOMEBODY,
                extra_groups=[],
                cwd="/",
                capture_output=True,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return path
    return None


def as_somebody(folder: Path, programs: str | None = None) -> dict[str, Any]:
    """Give what ``subprocess`` needs to be somebody else, whose folder this becomes.

    ``programs`` is a folder to be searched for programs first.
    """
    for path in (folder, *folder.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    env = {
        "PATH": os.pathsep.join([*([programs] if programs else []), os.defpath]),
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": [], "env": env}

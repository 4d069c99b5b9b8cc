"""What this machine can enforce, asked of it once: a child tries each thing and tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dicode_mcp.cage
from dicode_mcp import children
from dicode_mcp.executor.sandbox.groups import Groups

CAGE = str(Path(dicode_mcp.cage.__file__).resolve().parent / "__main__.py")
_WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What there is. Texts say why something is not there, and are empty when it is."""

    machine: str = ""
    uid: int = 0
    landlock: int = 0
    """The version of its interface; 0: none."""
    seccomp: str = "not tried"
    told: str = "not tried"
    """Hearing of connections before they are made, and making them in the caller's place."""
    user: str = "not tried"
    net: str = "not tried"
    files: str = "not tried"
    """Namespaces of users, files and processes together."""
    files_as_root: str = "not tried"
    """The same without a namespace of users."""
    error: str = ""
    groups: Groups | None = None
    """Control groups the server may make for its runs."""

    @property
    def separates(self) -> bool:
        """Whether a run can have files and processes of its own to see."""
        return not self.files or not self.files_as_root


def look(groups: Groups | None = None) -> Probe:
    """Try everything; takes some 50 ms. Blocks. A machine that is not Linux has nothing."""
    if sys.platform != "linux":
        return Probe(error=f"{sys.platform} has none of the kernel's means that are used")
    with tempfile.TemporaryDirectory(prefix="dicode-probe-") as folder:
        try:
            told = children.run(
                [sys.executable, "-I", "-S", CAGE, "probe", folder],
                env={"PATH": os.defpath},
                timeout=_WAIT_S,
            )
            found: Any = json.loads(told.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Probe(error=f"the probe did not answer ({type(error).__name__})")
    return read(found, groups)


def read(found: Mapping[str, Any], groups: Groups | None = None) -> Probe:
    """Make a probe of what the child told."""
    known = {k: v for k, v in found.items() if k in Probe.__dataclass_fields__}
    return Probe(**known, groups=groups)

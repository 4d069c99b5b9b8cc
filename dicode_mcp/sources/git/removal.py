"""Removes checkouts, whole or unfinished; their folders are not writable. Blocks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

UNFINISHED = ".new-"
"""What the name of a folder begins with while it is being written."""


def remove(folder: Path) -> None:
    """Remove a folder of plain files; nothing happens when it is not there."""
    for where, _, _ in os.walk(folder):
        os.chmod(where, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(checkouts: Path) -> None:
    """Remove what a writing that was cut off has left."""
    for path in checkouts.glob(f"{UNFINISHED}*"):
        if path.is_dir():
            remove(path)
        else:
            path.unlink(missing_ok=True)

"""The environments on disk: one for each block, below the server's cache; tasks only read them.

Everything here can be made again; losing it costs time and, for packages that uv has not kept,
the network.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dicode_runtimes.uv.block import Block

KEPT_UNUSED_MS = 24 * 3600 * 1000
"""How long an environment stays that no task uses: longer than a run that began with it."""
OLDEST = (3, 11)
_NOTE = "ready.json"


@dataclass(frozen=True, slots=True)
class Environment:
    """One that is ready. ``packages`` are its folders of packages, ``base`` the interpreter's."""

    python: str
    packages: tuple[str, ...]
    root: Path
    base: Path


class Environments:
    """Those below ``root``, by the digest of their block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, Environment] = {}

    def folder(self, block: Block) -> Path:
        """Give the block's own folder; its path stays the same."""
        return self.root / "blocks" / block.digest

    def script(self, block: Block) -> Path:
        """Give the file with the block that uv reads, writing it if need be. Raises ``OSError``."""
        for folder in (self.folder(block), self.root / "home"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder(block) / "block.py"
        if not path.exists():
            new = path.with_suffix(".new")
            new.write_text(block.script)
            new.replace(path)
        return path

    def ready(self, block: Block) -> Environment | None:
        """Give the environment of a block, None when it has to be made. Reads a file once."""
        found = self._known.get(block.digest) or self._read(block)
        if found is None or not os.access(found.python, os.X_OK):
            self._known.pop(block.digest, None)
            return None
        self._known[block.digest] = found
        return found

    def keep(self, block: Block, python: str) -> Environment | None:
        """Note that uv has made an environment; None when what it made cannot be used."""
        found = _describe(Path(python))
        if found is None:
            return None
        note = self.folder(block) / _NOTE
        new = note.with_suffix(".new")
        new.write_text(json.dumps({"python": found.python}))
        new.replace(note)
        self._known[block.digest] = found
        return found

    def tidy(self, used: Collection[str], now_ms: int) -> list[str]:
        """Note which digests are in use, and remove what was not for a day. Gives those removed."""
        removed: list[str] = []
        with suppress(OSError), os.scandir(self.root / "blocks") as entries:
            for entry in list(entries):
                seconds = now_ms / 1000
                if entry.name in used:
                    os.utime(entry.path, (seconds, seconds))
                elif now_ms - entry.stat().st_mtime * 1000 > KEPT_UNUSED_MS:
                    self._remove(Path(entry.path))
                    removed.append(entry.name)
        return removed

    def _remove(self, folder: Path) -> None:
        self._known.pop(folder.name, None)
        python = _noted(folder)
        # The note goes first: without it nobody takes the rest for an environment.
        (folder / _NOTE).unlink(missing_ok=True)
        if python is not None and self.root in python.parents:
            shutil.rmtree(python.parent.parent, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _read(self, block: Block) -> Environment | None:
        python = _noted(self.folder(block))
        return _describe(python) if python is not None else None


def _noted(folder: Path) -> Path | None:
    try:
        raw: Any = json.loads((folder / _NOTE).read_bytes())
        return Path(str(cast("dict[str, Any]", raw)["python"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _describe(python: Path) -> Environment | None:
    """Read what an environment consists of; None for one that is too old or not whole."""
    root = python.parent.parent
    version = version_of(root)
    if version is None or version < OLDEST or not os.access(python, os.X_OK):
        return None
    real = Path(os.path.realpath(python))
    packages = sorted(root.glob("lib*/python*/site-packages"))
    folders = dict.fromkeys(os.path.realpath(each) for each in packages)
    return Environment(str(python), tuple(folders), root, real.parent.parent)


def version_of(root: Path) -> tuple[int, ...] | None:
    """Read the Python version of an environment."""
    try:
        lines = (root / "pyvenv.cfg").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() in ("version_info", "version"):
            words = value.strip().split(".")
            return tuple(int(w) for w in words[:2]) if all(map(str.isdigit, words[:2])) else None
    return None

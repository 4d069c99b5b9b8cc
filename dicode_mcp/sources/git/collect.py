"""Removes checkouts that nobody uses, and mirrors that nobody has named for long. Blocks."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from dicode_mcp.sources.git.index import SUFFIX
from dicode_mcp.sources.git.removal import UNFINISHED, remove, remove_unfinished
from dicode_mcp.sources.git.state import read_state

WORKER = "worker"
"""Among the mirrors, the folder of the worker's own files."""
_FORGOTTEN_S = 7 * 86400.0


def collect(checkouts: Path, keep: Collection[str]) -> int:
    """Remove the checkouts in a folder except those named; gives how many there were."""
    removed = 0
    for path in _entries(checkouts):
        name = path.name.removesuffix(SUFFIX)
        if name in keep or name.startswith(UNFINISHED):
            continue
        if path.is_dir():
            remove(path)
            removed += 1
        else:
            path.unlink(missing_ok=True)
    return removed


def collect_forgotten(
    mirrors: Path, checkouts: Path, named: Collection[str], used: Collection[str], now_s: float
) -> None:
    """Remove mirrors that no source names, once they are a week old and no commit is in use."""
    for folder in _entries(mirrors):
        state = folder / "state.json"
        if folder.name in named or not state.is_file():
            continue
        if now_s - state.stat().st_mtime < _FORGOTTEN_S:
            continue
        if not any(commit in used for commit in read_state(folder).commits):
            remove(checkouts / folder.name)
            shutil.rmtree(folder, ignore_errors=True)


def clean(mirrors: Path, checkouts: Path) -> None:
    """Remove what an earlier server left: its worker's files, and checkouts not remembered."""
    shutil.rmtree(mirrors / WORKER, ignore_errors=True)
    for folder in _entries(checkouts):
        remove_unfinished(folder)
        state = read_state(mirrors / folder.name)
        known = {ref.good.tree for ref in state.refs.values()}
        collect(folder, known | set(state.commits.values()))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []

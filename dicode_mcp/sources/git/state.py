"""What is remembered of a mirror across restarts. Blocks; holds no credentials."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dicode_mcp.sources.git.jobs import Good, load_good

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Known:
    """A ref's last good commit, and what the ref was at the remote then."""

    tip: str
    good: Good


@dataclass(frozen=True, slots=True)
class State:
    """``refs``: what is known, by ref. ``commits``: the tree of each commit with a checkout."""

    url: str = ""
    refs: Mapping[str, Known] = field(default_factory=dict[str, Known])
    commits: Mapping[str, str] = field(default_factory=dict[str, str])


def read_state(folder: Path) -> State:
    """Read what is known of the mirror in ``folder``; empty when nothing can be read."""
    try:
        raw: Any = json.loads(_file(folder).read_bytes())
        if raw["version"] != _VERSION:
            return State()
        refs = {
            str(name): Known(str(known["tip"]), load_good(known["good"]))
            for name, known in raw["refs"].items()
        }
        commits = {str(commit): str(tree) for commit, tree in raw["commits"].items()}
        return State(str(raw["url"]), refs, commits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return State()


def write_state(folder: Path, state: State) -> None:
    """Write what is known, whole or not at all. Raises ``OSError``."""
    raw = {
        "version": _VERSION,
        "url": state.url,
        "refs": {name: asdict(known) for name, known in state.refs.items()},
        "commits": dict(state.commits),
    }
    file = _file(folder)
    new = file.with_name(f".new-{file.name}")
    new.write_text(json.dumps(raw))
    os.replace(new, file)


def _file(folder: Path) -> Path:
    return folder / "state.json"

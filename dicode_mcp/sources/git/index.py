"""The index beside a checkout: which tree each folder is, and what that tree amounts to.

It spares reading again what a new commit did not change. Knows no git library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicode_mcp.sources.git.removal import UNFINISHED

SUFFIX = ".json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What lies in a tree, itself counted; ``bytes`` are those of its files."""

    files: int
    folders: int
    depth: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Index:
    """``trees``: the tree of each folder by its path; ``skipped``: why an entry is left out."""

    trees: Mapping[str, str] = field(default_factory=dict[str, str])
    facts: Mapping[str, Facts] = field(default_factory=dict[str, Facts])
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])


def index_path(checkout: Path) -> Path:
    """Give the index file of a checkout."""
    return checkout.with_name(checkout.name + SUFFIX)


def read_index(checkout: Path) -> Index | None:
    """Read the index of a checkout; None when there is none that can be read."""
    try:
        raw = json.loads(index_path(checkout).read_bytes())
        if raw["version"] != _VERSION:
            return None
        facts = {tree: Facts(*numbers) for tree, numbers in raw["facts"].items()}
        return Index(raw["trees"], facts, raw["skipped"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def write_index(checkout: Path, index: Index) -> None:
    """Write the index of a checkout, whole or not at all."""
    facts = {t: (f.files, f.folders, f.depth, f.bytes) for t, f in index.facts.items()}
    raw = {
        "version": _VERSION,
        "trees": index.trees,
        "facts": facts,
        "skipped": index.skipped,
    }
    path = index_path(checkout)
    new = path.with_name(f"{UNFINISHED}{path.name}-{os.getpid()}")
    new.write_text(json.dumps(raw, separators=(",", ":")))
    os.replace(new, path)


class TreeIds(Mapping[str, str]):
    """The tree of each folder of a checkout, read from its index when first asked for."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout
        self._trees: Mapping[str, str] | None = None

    def _read(self) -> Mapping[str, str]:
        if self._trees is None:
            index = read_index(self._checkout)
            self._trees = index.trees if index else {}
        return self._trees

    def __getitem__(self, path: str) -> str:
        return self._read()[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

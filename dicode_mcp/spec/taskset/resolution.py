"""What resolving gives, and where it begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dicode_mcp.spec.problems import Problem
from dicode_mcp.spec.taskset.documents import EntryDoc, TaskSetDoc
from dicode_mcp.spec.taskset.merge import Layer
from dicode_mcp.spec.taskset.world import Remote, Tree
from dicode_mcp.spec.yaml12 import Document

Trust = Literal["trusted", "untrusted"]
_SET_NAMES = ("taskset.yaml", "taskset.yml")


@dataclass(frozen=True, slots=True)
class Declared:
    """A task as a source declares it: where it is, and what is laid over its manifest.

    ``layers`` are lowest first. ``inline`` is a manifest with its ``script``; then ``folder`` is
    that of the set's file. Two that are equal give the same task when their folders hold the same.
    """

    id: str
    folder: Path
    tree: Tree
    layers: tuple[Layer, ...] = ()
    inline: Document | None = field(default=None, compare=False)
    inline_data: object = None
    set_dir: Path | None = None
    entry: EntryDoc | None = field(default=None, compare=False, repr=False)
    """None for a folder that a search found."""

    @property
    def trust(self) -> Trust:
        """Whether what it holds may run without an approval."""
        return "trusted" if self.tree.trusted else "untrusted"

    @property
    def revision(self) -> str | None:
        """The commit its folder is from."""
        return self.tree.revision


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry that gives no task. What was declared at its id and below it is kept in force.

    ``everything``: it is the root, so whatever the source declared is kept.
    """

    id: str
    folder: Path
    reason: str
    problems: tuple[Problem, ...]
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Off:
    """An entry that this server does not take, why, and the line that says so."""

    id: str
    reason: Literal["disabled", "hosts"]
    place: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """Everything a source declares.

    ``files`` are the set files that were read, ``outside`` what lies beyond the source's own
    folder; a change in either is a reason to resolve again. ``problems`` are those of the source:
    what was not searched, and ids that are declared twice.
    """

    tasks: tuple[Declared, ...] = ()
    broken: tuple[Broken, ...] = ()
    off: tuple[Off, ...] = ()
    needs: frozenset[Remote] = frozenset()
    files: frozenset[Path] = frozenset()
    outside: frozenset[Path] = frozenset()
    unread: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Root:
    """Where resolving begins. ``inline``: a set that is written elsewhere, relative to ``path``.

    ``namespace`` is the source's name when the user gave one; ``fallback`` names a set that has
    neither a name of its own nor a named source. ``watched``: whoever watches the source sees what
    lies in its folder; else each place that is named there counts as ``outside``.
    """

    path: Path
    tree: Tree
    namespace: str = ""
    fallback: str = ""
    inline: TaskSetDoc | None = None
    watched: bool = True


def namespace_of(path: Path, root: Path, fallback: str) -> str:
    """Name a set by the last segment of its path below ``root``, else ``fallback``."""
    inner = path.relative_to(root) if path.is_relative_to(root) else path
    parts = [part for part in inner.parts if part not in _SET_NAMES]
    return parts[-1].removesuffix(".yaml").removesuffix(".yml") if parts else fallback

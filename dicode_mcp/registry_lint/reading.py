"""Reads a registry from disk with the server's own rules, every fault in its file and line.

Blocks, and asks no remote.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.errors import DicodeError
from dicode_mcp.reconciler.effective import change_of
from dicode_mcp.reconciler.inline import materialise
from dicode_mcp.reconciler.world import DiskWorld, Places, SetFiles
from dicode_mcp.service.shelves import read_manifest
from dicode_mcp.spec import yaml12
from dicode_mcp.spec.files import read_text
from dicode_mcp.spec.loader import MANIFEST, Change, TaskLoader
from dicode_mcp.spec.problems import Problem, SpecError, problem_at
from dicode_mcp.spec.taskset.catalogue import Catalogue, Listing, catalogue_of
from dicode_mcp.spec.taskset.documents import MAX_BYTES
from dicode_mcp.spec.taskset.resolution import Declared, Root
from dicode_mcp.spec.taskset.resolve import resolve
from dicode_mcp.spec.taskset.world import Tree

_ELSEWHERE = "NotBuilt"
"""Why an entry in another repository gives nothing here: nothing is fetched."""


class Reader:
    """Reads one registry. ``scratch`` is an empty folder for what is written inline."""

    def __init__(self, path: Path, scratch: Path, clock: Clock) -> None:
        folder = path.parent if path.suffix in (".yaml", ".yml") else path
        self._path = path
        self.tree = Tree(repository_root(folder), confined=True)
        self.world = DiskWorld(
            Places(home=Path("/nonexistent")),
            SetFiles(),
            dev=False,
            now_ns=clock.now_ms() * 1_000_000,
        )
        self._scratch = scratch
        self._loader = TaskLoader(
            runtimes={},
            environ={},
            home=Path("/nonexistent"),
            data_dir=Path("/nonexistent/data"),
            config_dir=Path("/nonexistent"),
        )
        self._documents: dict[str, yaml12.Document | None] = {}

    def catalogue(self) -> Catalogue:
        """Give what is offered."""
        return catalogue_of(self._path, self.tree, self.world, read_manifest)

    def problems(self, catalogue: Catalogue) -> list[Problem]:
        """Give every fault of the sets, of their entries and of the tasks in the repository."""
        root = Root(self._path, self.tree, fallback="registry")
        found = resolve(root, self.world)
        problems = list(found.problems)
        for broken in found.broken:
            problems += broken.problems if broken.reason != _ELSEWHERE else ()
        for declared in found.tasks:
            problems += self._task_problems(declared)
        known = {(problem.file, problem.line) for problem in problems}
        problems += [p for p in catalogue.problems if (p.file, p.line) not in known]
        return list(dict.fromkeys(problems))

    def _task_problems(self, declared: Declared) -> Iterable[Problem]:
        folder = declared.folder
        if declared.inline is not None:
            folder = materialise(declared.inline, self._scratch)
        shown = declared.tree.name_of(declared.folder / MANIFEST)
        return self.load(folder, declared.tree.root, shown, change_of(declared))

    def load(
        self, folder: Path, root: Path, shown: str, change: Change | None
    ) -> Iterator[Problem]:
        """Load a task as a server would; gives what is wrong with it."""
        try:
            self._loader.load(
                folder, task_id="task", source="registry", source_root=root, change=change
            )
        except SpecError as error:
            for problem in error.problems:
                yield replace(problem, file=shown) if problem.file == MANIFEST else problem
        except DicodeError as error:
            yield Problem(shown, 0, 0, "", error.message, error.hint or "")
        except OSError as error:
            yield Problem(shown, 0, 0, "", f"cannot be read: {error.strerror}")

    def problem(self, listing: Listing, path: tuple[str, ...], message: str, hint: str) -> Problem:
        """Make a problem of an entry, at the line of the key that ``path`` names in it."""
        entry = listing.entry
        if entry.place is None:
            name = f"{entry.file}/{MANIFEST}" if listing.folder else entry.file
            return Problem(name, 0, 0, "", message, hint)
        document = self._document(entry.file)
        if document is None:
            return entry.problem(message, hint)
        where = ("spec", "entries", entry.key, *path)
        return problem_at(where, message, hint, places=document.places, file=entry.file)

    def _document(self, name: str) -> yaml12.Document | None:
        if name not in self._documents:
            try:
                text = read_text(self.tree.root / name, name, max_bytes=MAX_BYTES)
                self._documents[name] = yaml12.load(text, name, max_bytes=MAX_BYTES)
            except SpecError:
                self._documents[name] = None
        return self._documents[name]


def repository_root(folder: Path) -> Path:
    """Give the work tree a folder is in, else the folder: refs may not leave it."""
    for above in (folder, *folder.parents):
        if (above / ".git").exists():
            return above
    return folder


def shown_from(problem: Problem, root: Path, cwd: Path) -> Problem:
    """Name a problem's file as somebody in ``cwd`` would."""
    if not problem.file or os.path.isabs(problem.file) or not os.path.lexists(root / problem.file):
        return problem
    path = root / problem.file
    inside = path.is_relative_to(cwd)
    return replace(problem, file=str(path.relative_to(cwd)) if inside else str(path))

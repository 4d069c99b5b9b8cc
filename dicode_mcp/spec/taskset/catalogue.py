"""What a set offers to others: its entries, and those of the sets in its own tree, described.

Follows no URL: of what is in another repository it knows what the entry says. A fault is its
entry's; all else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from dicode_mcp.spec.ids import check_task_id
from dicode_mcp.spec.problems import Problem, SpecError
from dicode_mcp.spec.taskset.documents import EntryDoc, Ref, TaskSetDoc
from dicode_mcp.spec.taskset.merge import Layer
from dicode_mcp.spec.taskset.nesting import entered
from dicode_mcp.spec.taskset.precedence import Frame, is_enabled, layers_of
from dicode_mcp.spec.taskset.targets import Fault, Targets
from dicode_mcp.spec.taskset.world import Spot, Tree, What, World
from dicode_mcp.spec.yaml12 import Document

MAX_LISTINGS = 10_000
"""How many entries one registry may offer: sets that hold sets twice grow fast."""

ReadManifest = Callable[[Path, str], Document]
"""Reads the manifest of a folder, called so in messages; raises ``SpecError``."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One thing that is offered, by its path: the keys of the entries that lead to it.

    ``ref`` is set for what is in a repository of its own, ``folder`` for what is in the tree
    itself; neither for a task that is written in the set. ``on`` is whether it is switched on.
    """

    path: str
    entry: EntryDoc
    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    ref: Ref | None = None
    folder: Path | None = None
    layers: tuple[Layer, ...] = ()
    on: bool = True


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything offered, in the order it is written. ``problems`` are of what is left out."""

    listings: tuple[Listing, ...] = ()
    problems: tuple[Problem, ...] = ()


def catalogue_of(path: Path, tree: Tree, world: World, read: ReadManifest) -> Catalogue:
    """Walk what is at ``path``: a set, or a folder with tasks and sets below it."""
    walk = _Walk(world, read)
    walk.run(path, tree)
    return Catalogue(tuple(walk.listings.values()), tuple(dict.fromkeys(walk.problems)))


class _Walk:
    def __init__(self, world: World, read: ReadManifest) -> None:
        self._world = world
        self._read = read
        self._targets = Targets(world, watched=True)
        self.listings: dict[str, Listing] = {}
        self.problems: list[Problem] = []

    def run(self, path: Path, tree: Tree) -> None:
        spot = self._world.look(path, tree)
        if spot.what is What.NOTHING:
            self._tell(tree, path, spot.fault, "name a folder with a taskset.yaml, or such a file")
        elif spot.what is What.TASK:
            self._tell(tree, path, "is one task and no TaskSet", "name it as an entry of a set")
        elif spot.what is What.FOLDER:
            self._folder(spot.path, Frame("", tree, spot.path))
        else:
            self._root(spot, tree)

    def _root(self, spot: Spot, tree: Tree) -> None:
        shown = tree.name_of(spot.path)
        try:
            document = self._world.read_set(spot.path, shown)
        except SpecError as error:
            self.problems.extend(error.problems)
            return
        self._set(document, Frame("", tree, spot.path.parent, chain=((spot.path, shown),)))

    def _set(self, document: TaskSetDoc, frame: Frame) -> None:
        frame = frame.with_defaults(document)
        for entry in document.entries:
            try:
                self._entry(entry, frame)
            except Fault as fault:
                self.problems.extend(fault.problems)
            except SpecError as error:
                self.problems.extend(error.problems)

    def _entry(self, entry: EntryDoc, frame: Frame) -> None:
        _refuse(entry, frame.join(entry.key))
        layers = layers_of(entry, frame)
        if entry.inline is not None:
            self._list(entry, frame, layers, entry.inline.data)
        elif entry.ref is not None and entry.ref.url is not None:
            self._list(entry, frame, layers, None, ref=entry.ref)
        else:
            self._inside(entry, frame, layers)

    def _inside(self, entry: EntryDoc, frame: Frame, layers: tuple[Layer, ...]) -> None:
        """Follow a ref into the tree itself."""
        tree, spot = self._targets.follow(entry, frame)
        if spot.what is What.TASK:
            self._task(entry, replace(frame, tree=tree), spot.path, layers)
            return
        inner = replace(frame, tree=tree, folder=spot.path).inside(entry)
        if spot.what is What.FOLDER:
            if self._folder(spot.path, inner) == 0:
                what = f"no task.yaml and no taskset.yaml in {tree.name_of(spot.path)} or below it"
                raise Fault("NotFound", entry.problem(what, "correct the ref, or remove the entry"))
        else:
            self._set(*entered(self._world, entry, spot, inner))

    def _folder(self, folder: Path, frame: Frame) -> int:
        """List what a search finds; gives how many places that were."""
        below = self._world.search(folder, frame.tree)
        self.problems.extend(below.problems)
        for hit in below.hits:
            entry = EntryDoc(hit.name, frame.tree.name_of(hit.folder))
            try:
                if hit.fault is not None:
                    self.problems.append(hit.fault)
                elif hit.is_set:
                    spot = self._world.look(hit.folder, frame.tree)
                    self._set(*entered(self._world, entry, spot, frame.inside(entry)))
                else:
                    self._task(entry, frame, hit.folder, layers_of(entry, frame))
            except Fault as fault:
                self.problems.extend(fault.problems)
            except SpecError as error:
                self.problems.extend(error.problems)
        return len(below.hits)

    def _task(self, entry: EntryDoc, frame: Frame, folder: Path, layers: tuple[Layer, ...]) -> None:
        document = self._read(folder, frame.tree.name_of(folder / "task.yaml"))
        self._list(entry, frame, layers, document.data, folder=folder)

    def _list(
        self,
        entry: EntryDoc,
        frame: Frame,
        layers: tuple[Layer, ...],
        manifest: Any,
        *,
        ref: Ref | None = None,
        folder: Path | None = None,
    ) -> None:
        path = frame.join(entry.key)
        if path in self.listings:
            what = f"the path {path!r} is there twice"
            self.problems.append(entry.problem(what, "rename one of the two entries"))
        elif len(self.listings) >= MAX_LISTINGS:
            what = f"offers more than {MAX_LISTINGS} entries; the rest is left out"
            told = Problem(entry.file, 0, 0, "", what)
            self.problems += [] if told in self.problems[-1:] else [told]
        else:
            name, description, tags = _said(manifest, layers)
            on = is_enabled(layers)
            name = name or path.rpartition("/")[2]
            self.listings[path] = Listing(
                path, entry, name, description, tags, ref, folder, layers, on
            )

    def _tell(self, tree: Tree, path: Path, what: str, hint: str) -> None:
        name = tree.shown if path == tree.root and tree.shown else tree.name_of(path)
        self.problems.append(Problem(name, 0, 0, "", what, hint))


def _refuse(entry: EntryDoc, path: str) -> None:
    if entry.problems:
        raise Fault("InvalidEntry", *entry.problems)
    try:
        check_task_id(path)
    except ValueError as error:
        fault = entry.problem(f"its path, made of the keys that lead to it, {error}")
        raise Fault("InvalidEntry", fault) from None


def _said(manifest: Any, layers: Sequence[Layer]) -> tuple[str, str, tuple[str, ...]]:
    """Give name, description and tags as the layers leave them; what is no text is left out."""
    fields: dict[str, Any] = {}
    if isinstance(manifest, Mapping):
        fields.update(cast("Mapping[str, Any]", manifest))
    for layer in layers:
        fields.update(layer.patch.data)
    tags: object = fields.get("tags")
    words = cast("list[object]", tags) if isinstance(tags, list) else []
    return (
        _text(fields.get("name")),
        _text(fields.get("description")),
        tuple(word for word in words if isinstance(word, str)),
    )


def _text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""

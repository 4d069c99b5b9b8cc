"""Which patches apply to an entry, and in which order (SPEC 2.2).

Lowest first: defaults from the outermost set in, overrides on the entries of sets from the
innermost out, the entry's own, then ``overrides.entries`` from the innermost out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicode_mcp.spec.taskset.documents import EntryDoc, TaskSetDoc
from dicode_mcp.spec.taskset.merge import Layer
from dicode_mcp.spec.taskset.patch import Patch
from dicode_mcp.spec.taskset.world import Lock, Tree

Target = tuple[str, Layer]
"""A patch of ``overrides.entries``, with the key it names relative to the set being walked."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The set being walked. Groups are one for each file that led here, outermost first."""

    id: str
    tree: Tree
    folder: Path
    defaults: tuple[Layer, ...] = ()
    general: tuple[tuple[Layer, ...], ...] = ()
    """Overrides on the entries of sets; within a file the general ones first."""
    targeted: tuple[tuple[Target, ...], ...] = ()
    chain: tuple[tuple[Path, str], ...] = ()
    """The set files that led here, and what messages call them."""
    lock: tuple[Lock, str] | None = None
    """The lock that pins what is below, and the entry of its set that led here."""

    def join(self, key: str) -> str:
        """Give the id of an entry."""
        return f"{self.id}/{key}" if self.id else key

    def with_defaults(self, document: TaskSetDoc) -> Frame:
        """Add the defaults of the set itself."""
        if not _says_something(document.defaults):
            return self
        layer = Layer("defaults", self.id, document.defaults)
        return replace(self, defaults=(*self.defaults, layer))

    def inside(self, entry: EntryDoc) -> Frame:
        """Give the frame of the set that an entry leads to."""
        task_id = self.join(entry.key)
        own = Layer("overrides", task_id, entry.overrides)
        general = tuple(
            (*group, *_for(entry.key, hits))
            for group, hits in zip(self.general, self.targeted, strict=True)
        )
        named = tuple(
            (key, Layer("overrides.entries", task_id, patch, key))
            for key, patch in entry.overrides.entries
        )
        deeper = tuple(tuple(_deeper(entry.key, group)) for group in self.targeted)
        return replace(self, id=task_id, general=(*general, (own,)), targeted=(*deeper, named))

    def targets_of(self, key: str) -> Iterator[Layer]:
        """Give what ``overrides.entries`` of the files around say of an entry, innermost first."""
        return (layer for group in reversed(self.targeted) for layer in _for(key, group))

    def unknown_targets(self, keys: Sequence[str]) -> Iterator[Target]:
        """Give the patches that name none of a set's entries."""
        for group in self.targeted:
            for key, layer in group:
                if not any(key == known or key.startswith(f"{known}/") for known in keys):
                    yield key, layer


def layers_of(entry: EntryDoc, frame: Frame) -> tuple[Layer, ...]:
    """Give what applies to an entry, lowest first."""
    own = Layer("overrides", frame.join(entry.key), entry.overrides)
    general = (layer for group in reversed(frame.general) for layer in group)
    every = (*frame.defaults, *general, own, *frame.targets_of(entry.key))
    return tuple(layer for layer in every if _says_something(layer.patch))


def switch_of(layers: Sequence[Layer]) -> Layer | None:
    """Give the layer that decides whether the entry is in force; None when none says anything."""
    said = [layer for layer in layers if layer.patch.enabled is not None]
    return said[-1] if said else None


def is_enabled(layers: Sequence[Layer]) -> bool:
    """Tell whether the entry is in force."""
    switch = switch_of(layers)
    return switch is None or bool(switch.patch.enabled)


def _says_something(patch: Patch) -> bool:
    return bool(patch.data) or patch.enabled is not None


def _for(key: str, group: Sequence[Target]) -> Iterator[Layer]:
    return (layer for target, layer in group if target == key)


def _deeper(key: str, group: Sequence[Target]) -> Iterator[Target]:
    """Give the patches for what is inside an entry: nested ones, and keys with its name before."""
    for target, layer in group:
        if target == key:
            for inner, patch in layer.patch.entries:
                yield inner, replace(layer, patch=patch, key=f"{layer.key}.{inner}")
        elif target.startswith(f"{key}/"):
            yield target[len(key) + 1 :], layer

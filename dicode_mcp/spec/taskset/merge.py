"""Patches merged into a manifest by the rules of SPEC 2.2, with the origin of every value kept.

Works on raw documents: what comes out is validated like any manifest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from dicode_mcp.spec.problems import KeyPath, Place
from dicode_mcp.spec.taskset.patch import Patch, env_name, params_as_map
from dicode_mcp.spec.trigger import kinds_of
from dicode_mcp.spec.yaml12 import Document

LayerKind = Literal["defaults", "overrides", "overrides.entries"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One patch where it applies. ``of`` is the id of the set or entry that holds it.

    ``key`` is the entry that an ``overrides.entries`` names.
    """

    kind: LayerKind
    of: str
    patch: Patch
    key: str = ""

    def __str__(self) -> str:
        """Say which layer it is, such as ``defaults of infra``."""
        return f"{self.kind}.{self.key} of {self.of}" if self.key else f"{self.kind} of {self.of}"


@dataclass(frozen=True, slots=True)
class Written:
    """Where a value was written: a layer (None: the task's own manifest), and its place."""

    layer: Layer | None
    place: Place | None


@dataclass(frozen=True, slots=True)
class Composed:
    """A merged manifest. ``origins`` has the layer of each path that a patch decided.

    ``hidden`` are the values that lower layers had for a path, lowest first.
    """

    document: Document
    origins: Mapping[KeyPath, Layer] = field(default_factory=dict[KeyPath, Layer])
    hidden: Mapping[KeyPath, tuple[Written, ...]] = field(
        default_factory=dict[KeyPath, tuple[Written, ...]]
    )


_PER_KEY = frozenset[KeyPath](
    {
        ("permissions",),
        ("permissions", "dicode"),
        ("trigger", "chain"),
        ("docker", "env_vars"),
        ("container", "env_vars"),
        *((key,) for key in ("docker", "container", "retry", "concurrency", "resources")),
        *((key,) for key in ("mcp", "notify", "provider", "budget", "run_inputs", "auto_fix")),
        *((key,) for key in ("retention", "api")),
    }
)
"""Maps that merge key by key; every other value is replaced whole."""


def compose(document: Document, layers: Sequence[Layer]) -> Composed:
    """Merge ``layers``, lowest first, into a manifest that was read and not yet validated."""
    used = [layer for layer in layers if layer.patch.data]
    if not used or not isinstance(document.data, dict):
        return Composed(document)
    merging = _Merging(document)
    for layer in used:
        merging.apply(layer)
    return merging.composed()


class _Merging:
    """A manifest being changed, and who wrote what."""

    def __init__(self, document: Document) -> None:
        data = cast("dict[str, Any]", copy.deepcopy(document.data))
        params, places = params_as_map(data.get("params"), document.places)
        if "params" in data:
            data["params"] = params
        self._document = document
        self._data = data
        self._places = places
        self._origins: dict[KeyPath, Layer] = {}
        self._hidden: dict[KeyPath, list[Written]] = {}
        self._layer: Layer | None = None

    def composed(self) -> Composed:
        document = replace(self._document, data=self._data, places=self._places)
        hidden = {path: tuple(found) for path, found in self._hidden.items()}
        return Composed(document, self._origins, hidden)

    def apply(self, layer: Layer) -> None:
        self._layer = layer
        for key, value in layer.patch.data.items():
            if key in ("docker", "container"):
                self._merge((_container_key(self._data),), value, (key,))
            else:
                self._merge((key,), value, (key,))

    def _merge(self, path: KeyPath, value: Any, at: KeyPath) -> None:
        """Merge one value of the patch; ``at`` is where the patch has it."""
        old = self._get(path)
        if value is None:
            self._remove(path, at)
        elif path == ("trigger",) and isinstance(value, Mapping) and isinstance(old, Mapping):
            self._merge_trigger(cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value))
        elif path == ("permissions", "env") and isinstance(value, list):
            self._merge_env(path, old, cast("list[Any]", value))
        elif path == ("params",) and isinstance(value, Mapping):
            self._merge_params(old, cast("Mapping[str, Any]", value))
        elif path in _PER_KEY and isinstance(value, Mapping):
            if not isinstance(old, Mapping):
                self._open(path, at)
            for key, item in cast("Mapping[str, Any]", value).items():
                self._merge((*path, key), item, (*at, key))
        else:
            self._put(path, value, at)

    def _merge_trigger(self, old: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        kinds, own = kinds_of(value), kinds_of(old)
        if kinds and kinds != own:
            self._put(("trigger",), {k: v for k, v in value.items() if v is not None}, ("trigger",))
            return
        for key, item in value.items():
            self._merge(("trigger", key), item, ("trigger", key))

    def _merge_params(self, old: Any, value: Mapping[str, Any]) -> None:
        if old is None:
            self._open(("params",), ("params",))
        elif not isinstance(old, Mapping):
            return  # a list that is none of parameters: its own faults are told
        for name, item in value.items():
            self._merge_param(("params", name), item)

    def _merge_param(self, path: KeyPath, value: Any) -> None:
        """Change a parameter's default, or the fields given; add one that is not there."""
        old = self._get(path)
        if value is None:
            self._remove(path, path)
        elif isinstance(value, Mapping):
            if not isinstance(old, Mapping):
                self._as_fields(path, old)
            for key, item in cast("Mapping[str, Any]", value).items():
                self._merge((*path, key), item, (*path, key))
        elif isinstance(old, Mapping) and not isinstance(value, list):
            self._put((*path, "default"), value, path)
        else:
            self._put(path, value, path)

    def _as_fields(self, path: KeyPath, default: Any) -> None:
        """Write ``name: default`` as the map that says the same."""
        if path not in self._places:
            self._open(path, path)
            return
        self._set(path, {} if default is None else {"default": default})
        if default is not None:
            self._places[(*path, "default")] = self._places[path]
            if path in self._origins:
                self._origins[(*path, "default")] = self._origins[path]

    def _merge_env(self, path: KeyPath, old: Any, value: list[Any]) -> None:
        if old is not None and not isinstance(old, list):
            return
        items = cast("list[Any]", old or [])
        rows = [_Row(item, *self._below((*path, i))) for i, item in enumerate(items)]
        names = [env_name(row.value) for row in rows]
        for index, item in enumerate(value):
            name = env_name(item)
            row = _Row(item, self._patch_places((*path, index)), {(): self._now})
            if name is None or name not in names:
                if not _removes(item):
                    rows.append(row)
                    names.append(name)
                continue
            number = names.index(name)
            if _removes(item):
                del rows[number], names[number]
            else:
                row.hidden.extend([*rows[number].hidden, rows[number].written()])
                rows[number] = row
        self._write_rows(path, rows)

    def _write_rows(self, path: KeyPath, rows: list[_Row]) -> None:
        place = self._places.get(path) or self._now.patch.places.get(path)
        origin = self._origins.get(path)
        self._drop(path)
        self._set(path, [row.value for row in rows])
        if place is not None:
            self._places[path] = place
        if origin is not None:
            self._origins[path] = origin
        for index, row in enumerate(rows):
            at = (*path, index)
            self._places.update({(*at, *rest): place for rest, place in row.places.items()})
            self._origins.update({(*at, *rest): layer for rest, layer in row.origins.items()})
            if row.hidden:
                self._hidden[at] = row.hidden

    def _below(
        self, path: KeyPath
    ) -> tuple[dict[KeyPath, Place], dict[KeyPath, Layer], list[Written]]:
        cut = len(path)
        places = {at[cut:]: p for at, p in self._places.items() if at[:cut] == path}
        origins = {at[cut:]: o for at, o in self._origins.items() if at[:cut] == path}
        return places, origins, self._hidden.get(path, [])

    # Single changes

    @property
    def _now(self) -> Layer:
        assert self._layer is not None
        return self._layer

    def _get(self, path: KeyPath) -> Any:
        value: Any = self._data
        for key in path:
            if not isinstance(value, Mapping):
                return None
            value = cast("Mapping[Any, Any]", value).get(key)
        return value

    def _set(self, path: KeyPath, value: Any) -> None:
        holder: Any = self._data
        for key in path[:-1]:
            holder = holder.setdefault(key, {})
        holder[path[-1]] = value

    def _open(self, path: KeyPath, at: KeyPath) -> None:
        """Begin a map that the manifest does not have."""
        self._put(path, {}, at)

    def _put(self, path: KeyPath, value: Any, at: KeyPath) -> None:
        self._hide(path)
        self._drop(path)
        self._set(path, copy.deepcopy(value))
        self._places.update({(*path, *r): p for r, p in self._patch_places(at).items()})
        self._origins[path] = self._now

    def _remove(self, path: KeyPath, at: KeyPath) -> None:
        if path not in self._places:
            return
        self._hide(path)
        self._drop(path)
        holder = self._get(path[:-1])
        if isinstance(holder, dict):
            cast("dict[Any, Any]", holder).pop(path[-1], None)
        # who removed it is kept, for the fault that its absence may be
        place = self._now.patch.places.get(self._patch_path(at))
        if place is not None:
            self._places[path] = place
        self._origins[path] = self._now

    def _hide(self, path: KeyPath) -> None:
        place = self._places.get(path)
        if place is not None and self._get(path) is not None:
            self._hidden.setdefault(path, []).append(Written(self._layer_of(path), place))

    def _layer_of(self, path: KeyPath) -> Layer | None:
        return next(
            (self._origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._origins),
            None,
        )

    def _drop(self, path: KeyPath) -> None:
        cut = len(path)
        for values in (self._places, self._origins):
            for at in [at for at in values if at[:cut] == path]:
                del values[at]
        for at in [at for at in self._hidden if at[:cut] == path and at != path]:
            del self._hidden[at]

    def _patch_places(self, at: KeyPath) -> dict[KeyPath, Place]:
        places = self._now.patch.places
        if at not in places:
            near = self._patch_path(at)
            return {(): places[near]} if near in places else {}
        cut = len(at)
        return {p[cut:]: place for p, place in places.items() if p[:cut] == at}

    def _patch_path(self, at: KeyPath) -> KeyPath:
        """Give the nearest path around ``at`` that the patch has a place for."""
        places = self._now.patch.places
        return next((at[:n] for n in range(len(at), -1, -1) if at[:n] in places), ())


@dataclass(slots=True)
class _Row:
    """An item of a list that merges by name, with what is known of it."""

    value: Any
    places: dict[KeyPath, Place]
    origins: dict[KeyPath, Layer]
    hidden: list[Written] = field(default_factory=list[Written])

    def written(self) -> Written:
        return Written(self.origins.get(()), self.places.get(()))


def _removes(entry: Any) -> bool:
    """Tell whether an entry of ``env`` takes a variable away: its origin is null."""
    if not isinstance(entry, Mapping):
        return False
    fields = cast("Mapping[str, Any]", entry)
    origins = [fields[key] for key in ("value", "from", "secret") if key in fields]
    return bool(origins) and all(origin is None for origin in origins)


def _container_key(data: Mapping[str, Any]) -> str:
    return "container" if data.get("container") is not None and "docker" not in data else "docker"

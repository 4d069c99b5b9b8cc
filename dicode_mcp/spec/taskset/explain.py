"""Which line of which file each value of an effective manifest comes from.

Shows places and layers, never values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from dicode_mcp.spec.problems import KeyPath, Place, render_path
from dicode_mcp.spec.taskset.merge import Composed, Written

OWN = "task.yaml"
BUILT_IN = "built-in default"
_WHOLE = frozenset({"output_schema", "on_failure_chain"})
"""Maps that are one value."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value was written: the layer's name, with file and line where there is one."""

    layer: str
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Explained:
    """The source of one value; ``over`` are the values it won over, the nearest first."""

    path: str
    source: Source
    over: tuple[Source, ...] = ()


def explain(composed: Composed, manifest: Mapping[str, Any]) -> tuple[Explained, ...]:
    """Give the source of each value of ``manifest``, the effective one, in its order."""
    values = list(_values(manifest))
    return tuple(_explained(composed, path) for path in (*values, *_emptied(composed, values)))


def _emptied(composed: Composed, shown: list[KeyPath]) -> Iterator[KeyPath]:
    """Give what a layer took away or made empty, which the manifest therefore does not show."""
    for path in composed.origins:
        near = any(path == p[: len(path)] or p == path[: len(p)] for p in shown)
        if path in composed.hidden and not near:
            yield path


def _values(manifest: Mapping[str, Any]) -> Iterator[KeyPath]:
    for key, value in manifest.items():
        yield from _below((key,), value)


def _below(path: KeyPath, value: Any) -> Iterator[KeyPath]:
    if path == ("permissions", "env") and isinstance(value, list):
        yield from ((*path, index) for index in range(len(cast("list[Any]", value))))
    elif isinstance(value, Mapping) and value and path[0] not in _WHOLE:
        for key, item in cast("Mapping[str, Any]", value).items():
            yield from _below((*path, key), item)
    else:
        yield path


def _explained(composed: Composed, path: KeyPath) -> Explained:
    at = _written_at(composed, path)
    over = tuple(_source(w, composed) for w in reversed(_hidden(composed, at or path)))
    if at is None:
        removed = _remover(composed, path)
        source = _source(removed, composed, removed=True) if removed else Source(BUILT_IN)
        return Explained(render_path(path), source, over)
    place = composed.document.places.get(at)
    layer = next((composed.origins[p] for p in _upwards(at) if p in composed.origins), None)
    return Explained(render_path(path), _source(Written(layer, place), composed), over)


def _written_at(composed: Composed, path: KeyPath) -> KeyPath | None:
    """Give the path a value was written at, in whatever short form; None when it was not."""
    value: Any = composed.document.data
    at: KeyPath = ()
    for key in path:
        if isinstance(value, Mapping):
            fields = cast("Mapping[Any, Any]", value)
            if key == "docker" and not at and "docker" not in fields:
                key = "container"
            if key not in fields:
                return None
            value = fields[key]
        elif isinstance(value, list) and isinstance(key, int):
            value = cast("list[Any]", value)[key]
        elif at[:1] == ("params",) and key != "default":
            return None
        else:
            break
        at = (*at, key)
    return _placed(composed, at)


def _placed(composed: Composed, at: KeyPath) -> KeyPath:
    return next((p for p in _upwards(at) if p in composed.document.places), at)


def _upwards(path: KeyPath) -> Iterator[KeyPath]:
    return (path[:end] for end in range(len(path), 0, -1))


def _hidden(composed: Composed, path: KeyPath) -> tuple[Written, ...]:
    return next((composed.hidden[p] for p in _upwards(path) if p in composed.hidden), ())


def _remover(composed: Composed, path: KeyPath) -> Written | None:
    layer = composed.origins.get(path)
    return Written(layer, composed.document.places.get(path)) if layer else None


def _source(written: Written, composed: Composed, *, removed: bool = False) -> Source:
    place: Place | None = written.place
    layer = OWN if written.layer is None else str(written.layer)
    if removed:
        layer = f"{BUILT_IN}, restored by {layer}"
    if place is None:
        return Source(layer, composed.document.file)
    return Source(layer, place.file, place.line)

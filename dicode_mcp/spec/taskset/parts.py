"""A part of a YAML document as a document of its own, with paths from the part's root on.

Knows nothing of what a part means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from dicode_mcp.spec.problems import KeyPath, Place, Problem
from dicode_mcp.spec.yaml12 import Document

V = TypeVar("V")


def part(document: Document, *path: str | int) -> Document:
    """Give what stands at ``path``; no data when nothing does."""
    data = document.data
    for key in path:
        data = _at(data, key)
    return Document(
        document.file, data, _below(document.places, path), _below(document.texts, path)
    )


def children(document: Document, *path: str) -> dict[str, Document]:
    """Give each entry of the map at ``path`` as a document, in order."""
    whole = part(document, *path)
    data: object = whole.data
    if not isinstance(data, Mapping):
        return {}
    places = _grouped(whole.places)
    texts = _grouped(whole.texts)
    entries = cast("Mapping[str, Any]", data)
    return {
        key: Document(document.file, entries[key], places.get(key, {}), texts.get(key, {}))
        for key in entries
    }


def place_of(document: Document, *path: str | int) -> Place | None:
    """Give the place of an entry, or of the nearest one around it."""
    for end in range(len(path), -1, -1):
        if (found := document.places.get(path[:end])) is not None:
            return found
    return None


def moved(problem: Problem, prefix: str) -> Problem:
    """Give a problem of a part with its path told from the whole file's root."""
    if not problem.path:
        return replace(problem, path=prefix)
    glue = "" if problem.path.startswith("[") else "."
    return replace(problem, path=f"{prefix}{glue}{problem.path}")


def _at(data: Any, key: str | int) -> Any:
    if isinstance(data, Mapping):
        return cast("Mapping[Any, Any]", data).get(key)
    if isinstance(data, list) and isinstance(key, int):
        items = cast("list[Any]", data)
        return items[key] if key < len(items) else None
    return None


def _below(values: Mapping[KeyPath, V], path: KeyPath) -> dict[KeyPath, V]:
    if not path:
        return dict(values)
    cut = len(path)
    return {at[cut:]: value for at, value in values.items() if at[:cut] == path}


def _grouped(values: Mapping[KeyPath, V]) -> dict[str, dict[KeyPath, V]]:
    groups: dict[str, dict[KeyPath, V]] = {}
    for at, value in values.items():
        if at:
            groups.setdefault(cast(str, at[0]), {})[at[1:]] = value
    return groups

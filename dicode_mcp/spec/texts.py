"""Scalars that are text whatever they look like: ``version: 1.10`` is not the number 1.1.

YAML reads unquoted numbers and booleans as such; where the manifest means text, what was written
counts.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

from dicode_mcp.spec.problems import KeyPath
from dicode_mcp.spec.yaml12 import Document

_ANY = object()

TEXT_FIELDS: tuple[tuple[object, ...], ...] = (
    ("version",),
    ("permissions", "env", _ANY, "value"),
    ("env", _ANY, "value"),
    ("docker", "env_vars", _ANY),
    ("docker", "user"),
    ("docker", "gpus"),
    ("container", "env_vars", _ANY),
    ("container", "user"),
    ("container", "gpus"),
    ("params", _ANY),
    ("params", _ANY, "default"),
    ("params", _ANY, "enum", _ANY),
    ("params", _ANY, _ANY, "default"),
    ("params", _ANY, _ANY, "enum", _ANY),
)
"""Parameter values are here too: their declared type reads the text again."""


def with_texts(document: Document, prefix: KeyPath = ()) -> Any:
    """Give the data with the text fields of the manifest at ``prefix`` as they were written."""
    data = document.data
    for path, text in document.texts.items():
        if path[: len(prefix)] == prefix and _is_text(path[len(prefix) :]):
            # a value under a doubled or unusable key is in no data
            with suppress(LookupError, TypeError):
                data = _put(data, path, text)
    return data


def _is_text(path: KeyPath) -> bool:
    return any(
        len(path) == len(field)
        and all(want is _ANY or want == part for want, part in zip(field, path, strict=True))
        for field in TEXT_FIELDS
    )


def _put(data: Any, path: KeyPath, text: str) -> Any:
    """Replace one value in a copy of what is on the way to it."""
    if not path:
        return text
    head, rest = path[0], path[1:]
    if isinstance(data, list):
        items = list(cast(list[Any], data))
        index = cast(int, head)
        items[index] = _put(items[index], rest, text)
        return items
    fields = cast(dict[Any, Any], data)
    return {**fields, head: _put(fields[head], rest, text)}

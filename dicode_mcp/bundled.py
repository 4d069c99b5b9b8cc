"""The tasks that come with the server, as a source: their set, with the user's overrides in it.

What the tasks do is theirs; they have no privilege that a user's task cannot declare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dicode_agents
from dicode_mcp.config import Config
from dicode_mcp.errors import Code
from dicode_mcp.sources.inline import InlineSource
from dicode_mcp.spec import yaml12
from dicode_mcp.spec.problems import KeyPath, Place, Problem, SpecError, choices
from dicode_mcp.spec.taskset.documents import TaskSetDoc, set_of
from dicode_mcp.spec.yaml12 import Document

NAME = "bundled"
"""What the source is called, unless the user has one of that name, and what its ids begin with."""
AGENT_RUNNER = f"{NAME}/agent-runner"
"""The task of it that runs agents."""
_FILE = "taskset.yaml"


@dataclass(frozen=True, slots=True)
class Bundled:
    """The source, and the set that it holds."""

    source: InlineSource
    entries: TaskSetDoc


def bundled(config: Config, taken: Sequence[str]) -> Bundled | None:
    """Make the source; None when it is switched off. ``taken`` are names of other sources.

    Raises ``SpecError`` (INVALID_CONFIG) for an override of a task that does not come with it.
    """
    if not config.bundled.enabled:
        return None
    file = Path(dicode_agents.__file__).parent / _FILE
    name = NAME if NAME not in taken else f"dicode-{NAME}"
    document = yaml12.load(file.read_text(encoding="utf-8"), f"{NAME}/{_FILE}")
    return Bundled(
        InlineSource(file, name), set_of(_overridden(document, config.bundled_overrides))
    )


def _overridden(document: Document, overrides: Document) -> Document:
    """Give the set with what the user says put into its entries; each keeps its own lines."""
    given = cast("Mapping[str, Any]", overrides.data)
    spec = cast("Mapping[str, Any]", document.data["spec"])
    entries = cast("Mapping[str, Mapping[str, Any]]", spec["entries"])
    _only_known(given, entries, overrides)
    merged = {
        key: {**entry, "overrides": given[key]} if key in given else entry
        for key, entry in entries.items()
    }
    known = overrides.places or dict(_placeless(given, overrides.file))
    return Document(
        document.file,
        {**document.data, "spec": {**spec, "entries": merged}},
        {**document.places, **{_inside(path): place for path, place in known.items() if path}},
        {**document.texts, **{_inside(path): t for path, t in overrides.texts.items() if path}},
    )


def _only_known(given: Mapping[str, Any], entries: Mapping[str, Any], overrides: Document) -> None:
    problems = [
        Problem(
            overrides.file,
            place.line if (place := overrides.places.get((key,))) else 0,
            place.column if place else 0,
            f"bundled.overrides.{key}",
            "is no task that comes with dicode",
            choices(key, entries),
        )
        for key in given
        if key not in entries
    ]
    if problems:
        raise SpecError(problems, Code.INVALID_CONFIG)


def _inside(path: KeyPath) -> KeyPath:
    return ("spec", "entries", path[0], "overrides", *path[1:])


def _placeless(data: Any, file: str, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Place]]:
    """Give a place for each value of what was never a file."""
    yield path, Place(file, 0, 0, 0, 0)
    items: Any = ()
    if isinstance(data, Mapping):
        items = cast("Mapping[str, Any]", data).items()
    elif isinstance(data, (list, tuple)):
        items = enumerate(cast("Sequence[Any]", data))
    for key, value in items:
        yield from _placeless(value, file, (*path, key))

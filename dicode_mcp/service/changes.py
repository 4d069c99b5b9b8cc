"""What a version of a task may do, and what another version changes about that and its files.

For whoever has to approve it. Values of secrets are never here: manifests name them only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from dicode_mcp.service.changed_files import compare_files
from dicode_mcp.spec.digest import is_ignored
from dicode_mcp.spec.manifest import render_manifest
from dicode_mcp.spec.model import Task

GRANTS = (
    "runtime",
    "trigger",
    "permissions",
    "docker",
    "resources",
    "timeout",
    "mcp",
    "mcp_port",
    "on_failure_chain",
    "provider",
    "auto_fix",
)
"""The keys of a manifest that say what a task may do, and when."""
ROOM = 64 * 1024
"""How many characters of differences are shown, unless somebody asks for more."""
_MOST_UNCOVERED = 20


def grants(task: Task) -> dict[str, Any]:
    """Give what a task may do and what starts it, in the manifest's own form."""
    manifest = _manifest(task)
    return {key: manifest[key] for key in GRANTS if key in manifest}


def changes(old: Task | None, new: Task, *, room: int = ROOM) -> dict[str, Any]:
    """Give what ``new`` changes: ``{grants?, settings?, uncovered?}`` and ``compare_files``'s.

    ``grants`` and ``settings`` are ``{added?, removed?, changed?}`` of ``path: value``.
    ``uncovered`` names what lies in the folder and is no part of the hash. ``room`` is for the
    characters of differences; names always have theirs. Blocks.
    """
    found: dict[str, Any] = {}
    before: Mapping[str, Any] = {} if old is None else _manifest(old)
    after = _manifest(new)
    for name, wanted in (("grants", True), ("settings", False)):
        told = _told(
            dict(_flat(_part(before, wanted))),
            dict(_flat(_part(after, wanted))),
        )
        if told:
            found[name] = told
    found |= compare_files(old, new, room)
    uncovered = _uncovered(new.folder)
    return found | ({"uncovered": uncovered} if uncovered else {})


def _manifest(task: Task) -> Mapping[str, Any]:
    return task.manifest if task.manifest is not None else render_manifest(task.spec)


# ── Manifests ──


def _part(manifest: Mapping[str, Any], of_grants: bool) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if (key in GRANTS) is of_grants}


def _flat(value: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Give each value with its path. Lists are sets here: each item is a path of its own."""
    if isinstance(value, Mapping) and value:
        for key, item in cast("Mapping[str, Any]", value).items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value:
        for item in cast("list[Any]", value):
            yield f"{path}[{_name(item)}]", item
    elif path:
        yield path, value


def _name(item: object) -> str:
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, Any]", item)
        return str(fields.get("name") or fields.get("path") or fields)
    return str(item)


def _told(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, dict[str, Any]] = {
        "added": {path: after[path] for path in after if path not in before},
        "removed": {
            path: before[path] for path in before if path not in after and not _grew(path, after)
        },
        "changed": {
            path: {"from": before[path], "to": after[path]}
            for path in after
            if path in before and before[path] != after[path]
        },
    }
    return {kind: of_kind for kind, of_kind in told.items() if of_kind}


def _grew(path: str, after: Mapping[str, Any]) -> bool:
    """Tell whether what was empty at a path holds something now."""
    return any(other.startswith((f"{path}.", f"{path}[")) for other in after)


# ── Beside the files ──


def _uncovered(folder: Path) -> list[str]:
    """Name what is in a task's folder and not in its hash; a folder stands for all in it."""
    found: list[str] = []
    pending = [(folder, "")]
    while pending and len(found) < _MOST_UNCOVERED:
        path, prefix = pending.pop()
        with suppress(OSError), os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = os.fsencode(f"{prefix}{entry.name}").decode("utf-8", "replace")
                below = entry.is_dir(follow_symlinks=False)
                if is_ignored(entry.name):
                    found += [f"{name}/" if below else name] if entry.name != ".git" else []
                elif below:
                    pending.append((path / entry.name, f"{prefix}{entry.name}/"))
    return sorted(found)[:_MOST_UNCOVERED]

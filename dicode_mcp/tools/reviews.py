"""What a human is told of a version in a question: the most dangerous first, and what is missing.

Pure. A task's own words are written as JSON, so that they are never taken for ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from dicode_mcp.service.approvals import Review
from dicode_mcp.tools.validation import clip

MOST_TEXT = 12_000
_MOST_LINE = 300
_ROOM_NEW = 3_000
_ROOM_SETTINGS = 1_000
_ROOM_NAMES = 2_000
_ROOM_LAST = 300
_OPENED = ("permissions", "permissions.dicode", "docker", "trigger")
"""Maps whose keys are ours: each has a line of its own."""
_DANGER = (
    "permissions.run",
    "permissions.fs",
    "permissions.net",
    "permissions.sys",
    "permissions.dicode",
    "permissions.env",
    "permissions",
    "docker",
    "runtime",
    "trigger",
)

Values = Mapping[str, Any]


def review_text(review: Review) -> str:
    """Write the question about a version, in at most about 12,000 characters."""
    task, view = review.task, review.view
    where = f" at commit {task.revision[:12]}" if task.revision else ""
    changes = cast("Values", view.get("changes", {}))
    files = cast("Sequence[Values]", changes.get("files", ()))
    lines = [
        f"Approve version {task.digest[:12]} of task {task.id}"
        f" (source {review.source}{where}; its code is others')?",
        "It may:",
        *_grants(cast("Values", view.get("grants", {}))),
    ]
    missing: list[str] = []
    for title, news, room, what in (
        ("New in what it may do:", _news(changes.get("grants")), _ROOM_NEW, "of what is new"),
        ("Other settings:", _news(changes.get("settings")), _ROOM_SETTINGS, "settings"),
        ("Files:", _names(files), _ROOM_NAMES, "names of files"),
    ):
        shown = _fitting(news, room)
        lines += [title, *shown] if shown else []
        missing += [f"{len(news) - len(shown)} {what}"] if len(shown) < len(news) else []
    unnamed = cast("Values", changes.get("left_out", {})).get("names", 0)
    missing += [f"{unnamed} more files, not even named"] if unnamed else []
    lines += _beside(changes)
    room = MOST_TEXT - _ROOM_LAST - sum(len(line) + 1 for line in lines)
    diffs, cut = _differences(files, room)
    lines += diffs
    missing += [f"the differences of {cut} files, or parts of them"] if cut else []
    return "\n".join([*lines, *_last(task.id, missing)])


def _last(task_id: str, missing: Sequence[str]) -> list[str]:
    if not missing:
        return []
    return [
        f"Not shown here: {'; '.join(missing)}. In a terminal,"
        f" dicode task approve {task_id} shows all."
    ]


def _beside(changes: Values) -> list[str]:
    lines: list[str] = []
    if changes.get("uncovered"):
        others = ", ".join(_said(clip(str(name))) for name in changes["uncovered"])
        lines.append(f"Files beside it that are no part of the version's hash: {others}.")
    if changes.get("note"):
        lines.append(f"Note: {changes['note']}.")
    return lines


def _fitting(lines: Sequence[str], room: int) -> Sequence[str]:
    for count, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            return lines[:count]
    return lines


# ── What it may do ──


def _grants(grants: Values) -> list[str]:
    told = sorted(_opened(grants), key=lambda item: _danger(item[0]))
    return [f"- {key.removeprefix('permissions.')}: {_value(value)}" for key, value in told]


def _opened(values: Values, above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        path = above + key
        if path in _OPENED and isinstance(value, Mapping) and value:
            yield from _opened(cast("Values", value), f"{path}.")
        else:
            yield path, value


def _news(told: object) -> list[str]:
    """Give a line for each value that is new, is another or is gone, in this order."""
    kinds = cast("Mapping[str, Values]", told or {})
    found: list[tuple[int, int, str]] = []
    for order, kind in enumerate(("added", "changed", "removed")):
        for path, value in kinds.get(kind, {}).items():
            key = path if path.isascii() and path.isprintable() else _said(path)
            line = _changed(value) if kind == "changed" else _value(value)
            found.append((_danger(path), order, f"- {kind} {_cut(key)}: {line}"))
    return [line for _, _, line in sorted(found, key=lambda item: item[:2])]


def _danger(path: str) -> int:
    found = (i for i, key in enumerate(_DANGER) if path == key or path.startswith(f"{key}."))
    listed = (i for i, key in enumerate(_DANGER) if path.startswith(f"{key}["))
    return min([*found, *listed], default=len(_DANGER))


def _changed(value: Values) -> str:
    return f"{_value(value['to'])} (was {_value(value['from'])})"


def _value(value: object) -> str:
    """Write a value in about 300 characters: what counts most of it, then how much is left out."""
    if isinstance(value, list | tuple):
        items = sorted((_item(item) for item in cast("Sequence[Any]", value)), key=_weight)
        return _items(items, "[", "]")
    if isinstance(value, Mapping):
        entries = cast("Mapping[str, Any]", value).items()
        return _items(sorted((f"{_said(k)}: {_said(v)}" for k, v in entries), key=len), "{", "}")
    return _cut(_said(value))


def _item(value: object) -> str:
    """Write an item of a list, what is short first: a long path must not hide its permission."""
    if isinstance(value, Mapping):
        entries = cast("Mapping[str, Any]", value).items()
        value = dict(sorted(entries, key=lambda entry: len(_said(entry[1]))))
    return _said(value)


def _weight(item: str) -> tuple[bool, bool, bool, int]:
    """Put wildcards, what may be written and secrets first, then what is short and so wide."""
    writes = '"permission": "rw"' in item or '"permission": "w"' in item
    return "*" not in item, not writes, '"secret"' not in item, len(item)


def _items(items: Sequence[str], opening: str, closing: str) -> str:
    kept = _fitting(items, _MOST_LINE) or [_cut(item) for item in items[:1]]
    left = len(items) - len(kept)
    more = f" … and {left} more" if left else ""
    return f"{opening}{', '.join(kept)}{more}{closing}"


def _cut(text: str) -> str:
    left = len(text) - _MOST_LINE
    return f"{text[:_MOST_LINE]}… and {left} more characters" if left > 0 else text


def _said(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)


# ── Files ──


def _names(files: Sequence[Values]) -> list[str]:
    return [
        f"- {file['change']} {_cut(_said(file['path']))}"
        + (" (not text)" if file.get("binary") else "")
        for file in files
    ]


def _differences(files: Sequence[Values], room: int) -> tuple[list[str], int]:
    """Give what fits of the differences, and of how many files they are not whole.

    After the first that does not fit no other is shown: what comes first counts more.
    """
    lines: list[str] = []
    cut = 0
    for file in files:
        diff = [_said(line) for line in str(file.get("diff", "")).split("\n") if line]
        wanted = [f"{_cut(_said(file['path']))}:", *map(_cut, diff)] if diff else []
        shown = _fitting(wanted, room)
        lines += shown
        fits = len(shown) == len(wanted)
        room = room - sum(len(line) + 1 for line in shown) if fits else 0
        whole = fits and all(len(line) <= _MOST_LINE for line in diff)
        cut += not whole or bool(file.get("diff_cut") or file.get("diff_left_out"))
    return lines, cut

"""The files of a version beside those of another: every path, and differences while there is room.

Knows nothing of manifests. What is most telling comes first: the manifest, the script, other text,
then what is no text. Everything here blocks.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dicode_mcp.spec.digest import is_ignored
from dicode_mcp.spec.model import Task

MOST_NAMES = 5_000
_MOST_BYTES = 8 * 2**20
_HEAD = 8 * 1024
_CHUNK = 2**20
_MOST_LINES_COMPARED = 6_000
_MANIFEST = "task.yaml"
_WRITTEN_OVER = (
    "the older version's files were written over; of them only the script is compared, and the"
    " others are shown as they are now"
)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class _Change:
    """A file that is not the same in both versions. ``over``: its old text, once written over."""

    name: str
    kind: str
    old: _File | None
    new: _File | None
    over: str | None = None
    is_text: bool = True


def compare_files(old: Task | None, new: Task, room: int) -> dict[str, Any]:
    """Give ``{files?, truncated?, left_out?, note?}`` with at most ``room`` characters of diffs.

    Each file has ``path``, ``change`` and ``diff`` or ``binary``; ``diff_cut`` or ``diff_left_out``
    when there was no room. ``left_out`` counts ``names``, ``diffs`` and, about, ``characters``.
    """
    over = old is not None and old.folder == new.folder
    found = _over(old, new) if old is not None and over else _beside(old, new)
    ordered = sorted(found, key=lambda change: _rank(change, new))
    shown = _Shown(room)
    lines = [shown.line(change) for change in ordered[:MOST_NAMES]]
    left_out = shown.left_out
    if len(ordered) > MOST_NAMES:
        left_out["names"] = len(ordered) - MOST_NAMES
    told: dict[str, Any] = {"files": lines} if lines else {}
    if left_out:
        told |= {"truncated": True, "left_out": left_out}
    return told | ({"note": _WRITTEN_OVER} if over else {})


def _beside(old: Task | None, new: Task) -> list[_Change]:
    before = dict(_walk(old.folder)) if old is not None else {}
    after = dict(_walk(new.folder))
    found: list[_Change] = []
    for name in {*before, *after}:
        was, now = before.get(name), after.get(name)
        if was is not None and now is not None and _same(was, now):
            continue
        kind = "added" if was is None else "removed" if now is None else "changed"
        found.append(_Change(name, kind, was, now, is_text=_looks_text(was) and _looks_text(now)))
    return found


def _over(old: Task, new: Task) -> list[_Change]:
    """Compare the scripts as they were read: in a folder that is written over no more is left."""
    script = new.script.name if new.script is not None else ""
    found: list[_Change] = []
    for name, now in _walk(new.folder):
        if name == script:
            if old.code != new.code:
                found.append(_Change(name, "changed", None, now, over=old.code or ""))
        else:
            found.append(_Change(name, "present", None, now, is_text=_looks_text(now)))
    return found


def _rank(change: _Change, new: Task) -> tuple[int, str]:
    if change.name == _MANIFEST:
        return 0, ""
    if new.script is not None and change.name == new.script.name:
        return 1, ""
    return (2 if change.is_text else 3), change.name


class _Shown:
    """Shows one file after the other, and counts what there was no room for."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._diffs = 0
        self._characters = 0

    @property
    def left_out(self) -> dict[str, int]:
        """Count the diffs that are not whole, and about how many characters they lack."""
        return {"diffs": self._diffs, "characters": self._characters} if self._diffs else {}

    def line(self, change: _Change) -> dict[str, Any]:
        """Give what is shown of a file."""
        line: dict[str, Any] = {"path": _shown_name(change.name), "change": change.kind}
        if change.new is None:
            return line if change.is_text else line | {"binary": True}
        if not change.is_text:
            return line | {"binary": True}
        if not self._room:
            return line | self._left_out(change.new.size)
        return line | self._difference(change, change.new)

    def _difference(self, change: _Change, now: _File) -> dict[str, Any]:
        old = change.over if change.over is not None else _text(change.old)
        new = _text(now)
        if isinstance(old, _Missing) or isinstance(new, _Missing):
            binary = _Missing("binary") in (old, new)
            return {"binary": True} if binary else self._left_out(now.size)
        diff = _diff(old, new, _shown_name(change.name))
        shown = diff[: self._room]
        self._room -= len(shown)
        if len(shown) == len(diff):
            return {"diff": diff}
        self._count(len(diff) - len(shown))
        return {"diff": shown, "diff_cut": True}

    def _left_out(self, characters: int) -> dict[str, Any]:
        self._count(characters)
        return {"diff_left_out": True}

    def _count(self, characters: int) -> None:
        self._diffs += 1
        self._characters += characters


# ── Reading ──


@dataclass(frozen=True, slots=True)
class _Missing:
    """Why there is no text: ``binary``, ``unread`` (too large, or it cannot be opened)."""

    why: str


def _walk(folder: Path) -> Iterator[tuple[str, _File]]:
    """Give the plain files that the hash covers, by path as the file system has it."""
    pending = [(folder, "")]
    while pending:
        path, prefix = pending.pop()
        with suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append((path / entry.name, f"{prefix}{entry.name}/"))
                elif entry.is_file(follow_symlinks=False):
                    size = entry.stat(follow_symlinks=False).st_size
                    yield f"{prefix}{entry.name}", _File(path / entry.name, size)


def _shown_name(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _open(file: _File) -> BinaryIO | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        stream = os.fdopen(os.open(file.path, flags), "rb")
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    return None


def _same(one: _File, other: _File) -> bool:
    """Tell whether both have the same content; what cannot be read is never the same."""
    if one.size != other.size:
        return False
    first = _hash(one)
    return first is not None and first == _hash(other)


def _hash(file: _File) -> bytes | None:
    stream = _open(file)
    if stream is None:
        return None
    hashed = hashlib.sha256()
    with stream:
        while chunk := stream.read(_CHUNK):
            hashed.update(chunk)
    return hashed.digest()


def _looks_text(file: _File | None) -> bool:
    """Tell whether a file begins as text does."""
    stream = _open(file) if file is not None else None
    if stream is None:
        return True
    with stream, suppress(UnicodeDecodeError):
        codecs.getincrementaldecoder("utf-8")().decode(stream.read(_HEAD))
        return True
    return False


def _text(file: _File | None) -> str | _Missing:
    if file is None:
        return ""
    stream = _open(file) if file.size <= _MOST_BYTES else None
    if stream is None:
        return _Missing("unread")
    with stream:
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        return _Missing("unread")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _Missing("binary")


# ── Differences ──


def _diff(old: str, new: str, name: str) -> str:
    """Give a unified diff; where comparing would take long, all old lines and then all new."""
    before, after = _lines(old), _lines(new)
    if before == after:
        return ""
    if not before:
        head = [f"--- a/{name}", f"+++ b/{name}", f"@@ -0,0 +1,{len(after)} @@"]
        return "\n".join([*head, *(f"+{line}" for line in after)])
    top = _common(before, after)
    bottom = _common(before[top:][::-1], after[top:][::-1])
    inner = len(before) + len(after) - 2 * (top + bottom)
    if inner <= _MOST_LINES_COMPARED:
        return _unified(before, after, name, top, bottom)
    gone, come = before[top : len(before) - bottom], after[top : len(after) - bottom]
    head = [
        f"--- a/{name}",
        f"+++ b/{name}",
        f"@@ -{top + 1},{len(gone)} +{top + 1},{len(come)} @@",
    ]
    return "\n".join([*head, *(f"-{line}" for line in gone), *(f"+{line}" for line in come)])


def _unified(before: list[str], after: list[str], name: str, top: int, bottom: int) -> str:
    """Compare what is between the common ends, with three lines of them around it."""
    first, last = max(0, top - 3), max(0, bottom - 3)
    lines = difflib.unified_diff(
        before[first : len(before) - last],
        after[first : len(after) - last],
        f"a/{name}",
        f"b/{name}",
        lineterm="",
    )
    return "\n".join(_moved(line, first) for line in lines)


def _moved(line: str, by: int) -> str:
    """Count a place from the file's begin; a line of a file never begins with ``@@`` in a diff."""
    if not by or not line.startswith("@@"):
        return line
    _, old, new, _ = line.split(" ")
    return f"@@ -{_later(old[1:], by)} +{_later(new[1:], by)} @@"


def _later(place: str, by: int) -> str:
    start, comma, count = place.partition(",")
    return f"{int(start) + by}{comma}{count}"


def _common(one: list[str], other: list[str]) -> int:
    """Count the lines that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _lines(text: str) -> list[str]:
    """Split at line feeds alone, so that a change of any other line end is seen."""
    lines = text.split("\n")
    if not lines[-1]:
        return lines[:-1]
    return [*lines[:-1], f"{lines[-1]}\n\\ No newline at end of file"]

"""Which files a program's name stands for, and which others it needs to be started."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_HELPERS: Mapping[str, tuple[str, ...]] = {
    "git": ("/usr/lib/git-core", "/usr/libexec/git-core"),
}
"""Folders with the parts of a program that it starts by itself."""
_DEPTH = 4
_PT_INTERP = 3


@dataclass(frozen=True, slots=True)
class Programs:
    """Real files to be executable. ``shown`` are also the names they are found by."""

    files: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def find(names: Sequence[str], path: str, folder: str) -> Programs:
    """Look programs up: by name on ``path``, with a slash from the task's ``folder``."""
    files: dict[str, None] = {}
    shown: dict[str, None] = {}
    missing: list[str] = []
    for name in names:
        found = _locate(name, path, folder)
        if found is None:
            missing.append(name)
            continue
        for each in (found, *_helpers(found)):
            shown[each] = None
            files.update(dict.fromkeys(_with_needs(each, path)))
    shown.update(dict.fromkeys(files))
    return Programs(tuple(files), tuple(shown), tuple(missing))


def loaders(program: str) -> tuple[str, ...]:
    """Give a program's real file and what the kernel loads to start it."""
    return tuple(_with_needs(program, ""))


def _locate(name: str, path: str, folder: str) -> str | None:
    if "/" in name:
        full = os.path.normpath(os.path.join(folder, name))
        return full if os.path.isfile(full) else None
    for each in path.split(os.pathsep):
        full = os.path.join(each, name)
        if each and os.path.isfile(full) and os.access(full, os.X_OK):
            return full
    return None


def _helpers(program: str) -> Iterable[str]:
    return (f for f in _HELPERS.get(os.path.basename(program), ()) if os.path.isdir(f))


def _with_needs(program: str, path: str, depth: int = 0) -> Iterable[str]:
    real = os.path.realpath(program)
    yield real
    if depth >= _DEPTH or not os.path.isfile(real):
        return
    for need in _needs(real, path):
        yield from _with_needs(need, path, depth + 1)


def _needs(file: str, path: str) -> Iterable[str]:
    try:
        with open(file, "rb") as opened:
            head = opened.read(4096)
    except OSError:
        return ()
    if head.startswith(b"#!"):
        return _script_needs(head, path)
    if head.startswith(b"\x7fELF\x02\x01"):
        return _elf_needs(head)
    return ()


def _script_needs(head: bytes, path: str) -> Iterable[str]:
    words = head[2:].split(b"\n", 1)[0].decode("utf-8", "replace").split()
    if not words:
        return
    yield words[0]
    if os.path.basename(words[0]) == "env":
        named = [w for w in words[1:] if not w.startswith("-") and "=" not in w]
        found = _locate(named[0], path, "/") if named else None
        if found:
            yield found


def _elf_needs(head: bytes) -> Iterable[str]:
    """Read the loader's path of a 64-bit little-endian ELF file."""
    try:
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for index in range(count):
            at = offset + index * size
            (kind,) = struct.unpack_from("<I", head, at)
            if kind == _PT_INTERP:
                (start,) = struct.unpack_from("<Q", head, at + 8)
                (length,) = struct.unpack_from("<Q", head, at + 32)
                yield head[start : start + length].rstrip(b"\0").decode()
    except (struct.error, UnicodeDecodeError):
        return

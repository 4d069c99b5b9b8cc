"""Which names of a git tree may become files. Part of the worker."""

from __future__ import annotations

import unicodedata
from enum import Enum

from dulwich.index import (
    validate_path_element_default,
    validate_path_element_hfs,
    validate_path_element_ntfs,
)

_MAX = 255


class Verdict(Enum):
    """What is to be done with a name."""

    FINE = "fine"
    ODD = "odd"
    """An honest repository may hold it; it is left out."""
    HOSTILE = "hostile"
    """Git itself never makes it: the commit is refused whole."""


def judge(name: bytes) -> Verdict:
    """Judge one name (no path)."""
    if not name or b"/" in name or b"\0" in name or not validate_path_element_default(name):
        return Verdict.HOSTILE
    if not validate_path_element_ntfs(name):
        return Verdict.HOSTILE
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return Verdict.ODD
    if not validate_path_element_hfs(name):
        return Verdict.HOSTILE
    return Verdict.ODD if len(name) > _MAX or any(map(_misleads, text)) else Verdict.FINE


def _misleads(character: str) -> bool:
    """Tell control, format (bidi, zero width) and unassigned characters, and a backslash."""
    return character == "\\" or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co")


def shown(name: bytes) -> str:
    """Give a name fit to be displayed."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)[:80]

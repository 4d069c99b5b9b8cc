"""Values as YAML text, in one line, that every reader of YAML reads as the same value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*(?:://?[A-Za-z0-9_./@+~%=&-]+)?")
_WORDS = frozenset("null true false yes no on off y n nan inf".split())
"""What some reader takes for something else than text."""
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def scalar(value: str | float | bool | None) -> str:
    """Write a scalar; text in quotes where it could be read as anything but that text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if _is_plain(value) else f'"{"".join(_escaped(c) for c in value)}"'
    return repr(value)


def flow(value: Any) -> str:
    """Write a value of maps, lists and scalars in one line."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in items) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(item) for item in cast("Sequence[Any]", value)) + "]"
    return scalar(value)


def block(value: Mapping[str, Any], indent: int, step: int = 2) -> list[str]:
    """Write a map as lines; maps in it as blocks of their own, all else in one line each."""
    lines: list[str] = []
    for key, item in value.items():
        start = " " * indent + scalar(key) + ":"
        if isinstance(item, Mapping) and item:
            lines.append(start)
            lines += block(cast("Mapping[str, Any]", item), indent + step, step)
        else:
            lines.append(f"{start} {flow(item)}")
    return lines


def _is_plain(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text)) and text.lower() not in _WORDS


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else (f"\\U{code:08x}")
    )

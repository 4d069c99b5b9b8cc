"""HTML that is safe by its making: text is escaped unless it is ``Html`` already.

What a reader cannot see (control, bidi and zero-width characters) is written out, so that no task
can make a page say something else than it stores. Knows nothing of what the pages show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

_COLOUR = re.compile("\x1b\\[[0-9;:]{0,32}m")
# C0 (but tab and line feed) and C1 controls, soft hyphen, bidi marks, embeddings and isolates,
# zero-width space, line and paragraph separators, invisible operators, surrogates, BOM,
# interlinear marks, tags. The joiners U+200C and U+200D stay: scripts and emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_VOID = frozenset({"meta", "link", "input"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
"""Markup, or text that is escaped; None is nothing; a list is its items in a row."""


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """Make an element. ``class_`` is ``class``, ``aria_label`` is ``aria-label``.

    An attribute that is None or False is left out, True stands without a value.
    """
    head = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{head}>")
    return Html(f"<{head}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Put children in a row."""
    return Html("".join(_child(child) for child in children))


def readable(text: str) -> str:
    """Give plain text with what cannot be seen written out, and terminal colours dropped."""
    return _UNSEEN.sub(lambda match: _written(match.group()), _COLOUR.sub("", text))


def _attribute(key: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(readable(str(value)))}"'


def _child(child: Child) -> str:
    if child is None or isinstance(child, Html):
        return child or ""
    if isinstance(child, str):
        return _escaped(child)
    return "".join(_child(item) for item in child)


def _escaped(text: str) -> str:
    """Escape; a character written out is marked, so that it differs from the same text typed."""
    return _UNSEEN.sub(
        lambda match: f'<span class="unseen">{_written(match.group())}</span>',
        escape(_COLOUR.sub("", text)),
    )


def _written(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"

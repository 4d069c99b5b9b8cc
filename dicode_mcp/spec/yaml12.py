"""YAML 1.2, strictly: text to plain data with the place of every entry.

One pass over the events of PyYAML's C parser, without recursion, so nothing is built from a file
that is too deep or too clever. Knows nothing of what a document means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from dicode_mcp.spec.problems import KeyPath, Place, Problem, SpecError, render_path

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_DIGITS = 308

_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]"
)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z")
_RADIX = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NUMERIC_START = frozenset("+-.0123456789")
_STR_TAGS = frozenset({"tag:yaml.org,2002:str", "!"})
_UNUSABLE = "\x00"
"""Begins the stand-in of a key that is no text; no key of a file can begin so."""
_COLLECTION_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!"})


@dataclass(frozen=True, slots=True)
class Document:
    """A file as plain data. ``problems`` are findings that did not stop the reading.

    ``texts`` keeps how numbers and booleans were written (``1.10`` is not ``1.1`` in a version).
    """

    file: str
    data: Any
    places: Mapping[KeyPath, Place] = field(default_factory=dict[KeyPath, Place])
    texts: Mapping[KeyPath, str] = field(default_factory=dict[KeyPath, str])
    problems: tuple[Problem, ...] = ()


def load(
    text: str, file: str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH
) -> Document:
    """Read one YAML document.

    Raises ``SpecError`` when the text cannot be read to its end: bad syntax, too large, too deep.
    """
    text = text.removeprefix("\ufeff")
    _refuse_size(text, file, max_bytes)
    _refuse_control(text, file)
    builder = _Builder(file, max_depth)
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise SpecError([*builder.problems, _syntax_problem(error, file)]) from None
    return builder.document()


def _events(text: str) -> Iterator[Event]:
    next_event: Any = yaml.CSafeLoader(text).get_event
    return iter(next_event, None)


def _refuse_size(text: str, file: str, max_bytes: int) -> None:
    if len(text) * 4 > max_bytes and len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise SpecError([Problem(file, 0, 0, "", f"is larger than {max_bytes // 1024} KiB")])


def _refuse_control(text: str, file: str) -> None:
    found = _CONTROL.search(text)
    if found:
        line, column = line_and_column(text, found.start())
        code = f"U+{ord(found.group()):04X}"
        raise SpecError([Problem(file, line, column, "", f"holds the control character {code}")])


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Give the place of an offset, counted from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _syntax_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    # the parser's own sentences name characters and tokens, never the text of a value
    reason = error.problem or "cannot be read"
    context = f" {error.context}" if error.context else ""
    return Problem(file, line, column, "", f"is not valid YAML: {reason}{context}", _hint(reason))


def _hint(reason: str) -> str:
    if "'\\t'" in reason or "tab" in reason:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in reason:
        return "a value that holds ': ' needs quotes"
    if "could not find expected ':'" in reason:
        return "write 'key: value', with a space after the colon"
    if "did not find expected" in reason:
        return "check the indentation of this line and the brackets and quotes before it"
    return ""


class _Frame:
    """A collection being filled. ``key`` is the entry under way in a map, None between entries."""

    __slots__ = ("count", "items", "key", "key_place", "path")

    def __init__(self, items: dict[str, Any] | list[Any], path: KeyPath) -> None:
        self.items = items
        self.path = path
        self.key: str | None = None
        self.key_place = (0, 0)
        self.count = 0


class _Builder:
    """Turns events into data; notes places, and problems that need not stop the reading."""

    def __init__(self, file: str, max_depth: int) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._max_depth = max_depth
        self._root: Any = None
        self._documents = 0
        self._stack: list[_Frame] = []
        self._places: dict[KeyPath, Place] = {}
        self._texts: dict[KeyPath, str] = {}
        self._unkeyed = 0

    def document(self) -> Document:
        return Document(
            self._file, self._root, self._places, self._texts, tuple(dict.fromkeys(self.problems))
        )

    def take(self, event: Event) -> None:
        kind = type(event)
        if kind is ScalarEvent:
            self._scalar(cast(ScalarEvent, event))
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            self._open(cast(CollectionStartEvent, event))
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            self._stack.pop()
        elif kind is AliasEvent:
            self._note(event, "YAML aliases are not allowed", "write the value out")
            self._add(event, None, is_text=True)
        elif kind is DocumentStartEvent:
            self._start_document(event)

    def _start_document(self, event: Event) -> None:
        self._documents += 1
        if self._documents > 1:
            self._note(event, "a file holds one document", "remove the second '---'")
            raise SpecError(self.problems)

    def _scalar(self, event: ScalarEvent) -> None:
        if event.anchor or event.tag:
            self._check_properties(event)
        text = event.value
        if event.tag is None and event.implicit[0]:
            self._add(event, self._plain(event, text), text)
        else:
            self._add(event, text, is_text=True)

    def _plain(self, event: Event, text: str) -> Any:
        """Read an unquoted scalar by the core schema; ``.inf`` and ``.nan`` are not JSON: text."""
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if text[0] not in _NUMERIC_START:
            return text
        if _INT.match(text):
            return self._number(event, text, lambda: int(text))
        if _RADIX.match(text):
            return self._number(event, text, lambda: int(text, 0))
        if _FLOAT.match(text):
            return self._number(event, text, lambda: float(text))
        return text

    def _number(self, event: Event, text: str, read: Any) -> Any:
        value = read() if len(text) <= MAX_DIGITS else math.inf
        if value in (math.inf, -math.inf):
            self._note(event, "the number is out of range", "put it in quotes if it is text")
            return None
        return value

    def _check_properties(self, event: NodeEvent) -> None:
        if event.anchor:
            self._note(event, "YAML anchors are not allowed", "write the value where it is used")
        tag: str | None = getattr(event, "tag", None)
        allowed = _STR_TAGS if isinstance(event, ScalarEvent) else _COLLECTION_TAGS
        if tag and tag not in allowed:
            self._note(event, "YAML tags are not allowed", "remove the '!…' before the value")

    def _open(self, event: CollectionStartEvent) -> None:
        if event.anchor or event.tag:
            self._check_properties(event)
        if len(self._stack) >= self._max_depth:
            self._note(event, f"is nested deeper than {self._max_depth} levels", path=())
            raise SpecError(self.problems)
        items: dict[str, Any] | list[Any] = {} if type(event) is MappingStartEvent else []
        self._stack.append(_Frame(items, self._add(event, items)))

    def _add(self, event: Event, value: Any, text: str = "", *, is_text: bool = False) -> KeyPath:
        """Put a value where the document has come to; gives its path."""
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if not self._stack:
            self._root = value
            self._places[()] = Place(self._file, line, column, line, column)
            return ()
        top = self._stack[-1]
        items = top.items
        if type(items) is list:
            path = (*top.path, top.count)
            top.count += 1
            items.append(value)
            self._places[path] = Place(self._file, line, column, line, column)
        else:
            if top.key is None:
                self._key(event, top, value, text, is_text)
                return (*top.path, top.key or "")
            path = (*top.path, top.key)
            if path not in self._places and top.key[0:1] != _UNUSABLE:
                cast(dict[str, Any], items)[top.key] = value
                self._places[path] = Place(self._file, *top.key_place, line, column)
            top.key = None
        if text and value is not None and type(value) is not str:
            self._texts[path] = text
        return path

    def _key(self, event: Event, top: _Frame, value: Any, text: str, is_text: bool) -> None:
        mark = event.start_mark
        top.key_place = (mark.line + 1, mark.column + 1)
        if type(value) is str:
            top.key = value
            if value in cast(dict[str, Any], top.items):
                first = self._places[(*top.path, value)].line
                self._note(
                    event,
                    f"the key is there twice, first on line {first}",
                    "keep one of the two",
                    (*top.path, value),
                )
            return
        # an unusable key still needs a name of its own until its value has passed
        self._unkeyed += 1
        top.key = f"{_UNUSABLE}{self._unkeyed}"
        if not is_text:
            shown = f"'{text}'" if text and len(text) <= 40 else "this key"
            self._note(event, f"a key must be text; {shown} is not", "put the key in quotes")

    def _note(
        self, event: Event, message: str, hint: str = "", path: KeyPath | None = None
    ) -> None:
        mark = event.start_mark
        where = self._here() if path is None else path
        shown = render_path(tuple(p for p in where if not str(p).startswith(_UNUSABLE)))
        self.problems.append(
            Problem(self._file, mark.line + 1, mark.column + 1, shown, message, hint)
        )

    def _here(self) -> KeyPath:
        if not self._stack:
            return ()
        top = self._stack[-1]
        if type(top.items) is list:
            return (*top.path, top.count)
        return top.path if top.key is None else (*top.path, top.key)

"""What is wrong with a file: each finding in its place, all findings of a file as one error.

Knows pydantic's error values and how to word them. Never shows a value that could be a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from dicode_mcp.errors import Code, DicodeError

KeyPath = tuple[str | int, ...]
"""Where a value stands in a document: map keys and list indexes from the root."""

SHOWN_PROBLEMS = 50
"""How many problems an error's message lists; its ``problems`` hold all."""

_SECRET_SEGMENT = re.compile(
    r"secret|token|password|passwd|credential|api_?key|^value$|^env$|^env_vars$|^default$|^enum$"
    r"|^url$|^command$|^entrypoint$|^auth$",
    re.IGNORECASE,
)
_SHOWN_CHARS = 40
_PLACED = re.compile(r"(?P<file>[^\s:]+\.[A-Za-z0-9]+)(?::(?P<line>[0-9]{1,9}))?: (?P<what>.+)")
_QUOTED = re.compile(r"'([^']*)'")

_EXPECTED: Mapping[str, str] = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a map",
    "mapping_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "path_type": "a path",
}


_BOUNDS: Mapping[str, str] = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_too_long": "at most {max_length} characters",
}


class Place(NamedTuple):
    """Where an entry stands, counted from 1: its key (or list item), then its value."""

    file: str
    line: int
    column: int
    value_line: int
    value_column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. ``line`` and ``column`` count from 1; 0 means the whole file.

    ``hint`` says what is allowed and the nearest match, or what to do.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Render as one line: ``task.yaml:7: trigger.cron: …; allowed: …``."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = f"{place}: {self.path}: " if self.path else f"{place}: "
        return where + self.message + (f"; {self.hint}" if self.hint else "")

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON-able form surfaces send."""
        out: dict[str, Any] = {"file": self.file, "path": self.path, "message": self.message}
        if self.line:
            out |= {"line": self.line, "column": self.column}
        if self.hint:
            out["hint"] = self.hint
        return out


class SpecError(DicodeError):
    """A file cannot be used. ``problems`` has every finding, in file order."""

    def __init__(self, problems: Iterable[Problem], code: Code = Code.INVALID_SPEC) -> None:
        self.problems = tuple(problems)
        super().__init__(
            code,
            "\n".join(_listing(self.problems)),
            hint="mend the lines named and save; the file is read again at once"
            if code is Code.INVALID_SPEC
            else "mend the lines named and start again",
            data={"problems": [p.as_dict() for p in self.problems]},
        )


def _listing(problems: Sequence[Problem]) -> list[str]:
    lines = [str(p) for p in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"and {len(problems) - SHOWN_PROBLEMS} more problems")
    return lines


def problems_in(message: str, file: str = "task.yaml") -> tuple[Problem, ...]:
    """Read a condition's lines of the form ``task.py:3: what``; others are of ``file``, whole."""
    return tuple(_line_problem(line, file) for line in message.splitlines() if line.strip())


def _line_problem(line: str, file: str) -> Problem:
    placed = _PLACED.fullmatch(line.strip())
    if placed is None:
        return Problem(file, 0, 0, "", line.strip())
    return Problem(placed["file"], int(placed["line"] or 0), 0, "", placed["what"])


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Give the known word most like ``word``, when one is close."""
    names = list(known)
    lowered = {name.lower(): name for name in names}
    if word.lower() in lowered:
        return lowered[word.lower()]
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def choices(word: Any, known: Iterable[str]) -> str:
    """Write the hint of a value that is none of ``known``."""
    names = list(known)
    hint = "allowed: " + ", ".join(names)
    match = nearest(word, names) if isinstance(word, str) else None
    return f"{hint}; did you mean '{match}'?" if match else hint


def render_path(path: KeyPath) -> str:
    """Write a key path as ``permissions.env[2].value``."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += f".{part}" if out else part
    return out


def describe(value: Any, path: KeyPath = ()) -> str:
    """Say what was found, with a short harmless value, and never one that could be a secret."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "a map"
    if may_be_secret(path):
        return "text" if isinstance(value, str) else "a number"
    text = repr(value)
    if len(text) > _SHOWN_CHARS:
        return "text" if isinstance(value, str) else "a number"
    return text


def may_be_secret(path: KeyPath) -> bool:
    """Tell whether a value at ``path`` must never be shown."""
    return any(isinstance(part, str) and _SECRET_SEGMENT.search(part) for part in path)


def problems_from_validation(
    error: ValidationError, places: Mapping[KeyPath, Place], file: str
) -> list[Problem]:
    """Give a problem for each error pydantic found, in file order."""
    found = [
        _problem(detail["type"], detail["loc"], detail, places, file)
        for detail in error.errors(include_url=False)
    ]
    return in_order(found)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sort by file position and drop repetitions."""
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda p: (p.file, p.line, p.column))


def _problem(
    kind: str, loc: KeyPath, detail: Mapping[str, Any], places: Mapping[KeyPath, Place], file: str
) -> Problem:
    message, hint = _wording(kind, loc, detail)
    return problem_at(loc, message, hint, places=places, file=file)


def problem_at(
    path: KeyPath,
    message: str,
    hint: str = "",
    *,
    places: Mapping[KeyPath, Place],
    file: str,
) -> Problem:
    """Make a problem at a key path, or at the nearest enclosing entry that has a place."""
    place = next(
        (places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in places), None
    )
    if place is None:
        return Problem(file, 0, 0, render_path(path), message, hint)
    return Problem(place.file, place.line, place.column, render_path(path), message, hint)


def _wording(kind: str, loc: KeyPath, detail: Mapping[str, Any]) -> tuple[str, str]:
    context: Mapping[str, Any] = detail.get("ctx", {})
    value = detail.get("input")
    if kind == "rule":
        return _with_found(context["message"], value, loc), context["hint"]
    if kind == "missing":
        return "is required and missing", f"add '{loc[-1]}:'"
    if kind in ("literal_error", "enum"):
        allowed = _QUOTED.findall(context.get("expected", "")) or [str(context.get("expected"))]
        return f"found {describe(value, loc)}", choices(value, allowed)
    if kind in _EXPECTED:
        quoted = kind == "string_type" and isinstance(value, (bool, int, float))
        return (
            f"must be {_EXPECTED[kind]}, found {describe(value, loc)}",
            "put it in quotes" if quoted else "",
        )
    if kind in _BOUNDS:
        return f"must be {_BOUNDS[kind].format(**context)}, found {describe(value, loc)}", ""
    if kind == "too_short":
        return "must not be empty", ""
    text = detail["msg"]
    return f"{text[:1].lower()}{text[1:]}, found {describe(value, loc)}", ""


def _with_found(message: str, value: Any, loc: KeyPath) -> str:
    """Begin a sentence with what was found, when that is short and harmless."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        return message
    shown = describe(value, loc)
    return message if shown in ("text", "a number") else f"{shown} {message}"

"""What the escape battery tries, read from the scripts that try it."""

from __future__ import annotations

import re
from pathlib import Path

from sections.markdown import table

_DATA = Path(__file__).resolve().parents[2] / "tests" / "security" / "data"
_PYTHON = re.compile(r"^@attempt\ndef (\w+)\(|^(?:made|family)\(\s*\"(\w+)\"", re.MULTILINE)
_DENO = re.compile(r"^(?:attempt|made)\(\"(\w+)\"", re.MULTILINE)


def tries() -> str:
    """List every try, and which runtime's script makes it. All are refused, or show nothing."""
    python = _names(_PYTHON, "escapes.py")
    deno = _names(_DENO, "escapes.ts")
    names = list(dict.fromkeys([*python, *deno]))
    rows = [[_said(n), _mark(n in python), _mark(n in deno), _mark(n in deno)] for n in names]
    head = f"{len(python)} tries in Python, {len(deno)} in Deno.\n\n"
    return head + table(["Try", "Python", "Deno", "Deno without its own checks"], rows)


def _names(pattern: re.Pattern[str], file: str) -> list[str]:
    found = pattern.finditer((_DATA / file).read_text("utf-8"))
    return [next(group for group in match.groups() if group) for match in found]


def _said(name: str) -> str:
    return name.replace("_", " ")


def _mark(tried: bool) -> str:
    return "refused" if tried else ""

"""What a run asks, put to whoever sits at the terminal, field by field.

The question is the server's; what is typed is read and checked here only to ask again at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, cast

from dicode_mcp.cli.render import Terminal, clean, one_line
from dicode_mcp.runs.question_values import choices_of, fields_of, from_texts, value_fault

Question = Mapping[str, Any]


def prompt(terminal: Terminal, question: Question) -> dict[str, Any] | None:
    """Ask for every field of a question; None when the reader ends it (Ctrl-D)."""
    terminal.note(terminal.style(clean(str(question["message"])), "bold"))
    schema = cast("Mapping[str, Any]", question["schema"])
    required = schema.get("required", ())
    answer: dict[str, Any] = {}
    for name, field in fields_of(schema).items():
        typed = _one(terminal, name, field, name in required)
        if typed is None:
            return None
        answer.update(typed)
    return answer


def _one(
    terminal: Terminal, name: str, field: Mapping[str, Any], required: bool
) -> dict[str, Any] | None:
    """Ask for one field until it fits; {} when it was left empty and may be."""
    if field.get("description"):
        terminal.note(f"  {one_line(str(field['description']))}")
    while True:
        terminal.err.write(_prompt(name, field))
        terminal.err.flush()
        line = sys.stdin.readline()
        if not line:
            terminal.note("")
            return None
        text = line.rstrip("\r\n")
        if text == "" and ("default" in field or not required):
            return {}
        schema = {"properties": {name: field}, "required": [name]}
        value = from_texts(schema, {name: text})[name]
        fault = value_fault(field, value)
        if fault is None:
            return {name: value}
        terminal.note(f"  {name} {fault}")


def _prompt(name: str, field: Mapping[str, Any]) -> str:
    title = one_line(str(field.get("title") or name))
    choices = choices_of(field)
    if choices is not None:
        told = " / ".join(v if v == label else f"{v} ({label})" for v, label in choices)
    else:
        told = "yes / no" if field["type"] == "boolean" else field.get("format") or field["type"]
    default = field.get("default")
    if isinstance(default, bool):
        default = "yes" if default else "no"
    kept = f" [{one_line(str(default))}]" if default is not None else ""
    return f"{title} ({one_line(str(told))}){kept}: "

"""One thing to add to permissions, or that is wider than used; and permissions as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import yaml

Field = Literal["env", "fs", "net", "run", "sys", "dicode"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to add, to leave out or to narrow, as a value of ``permissions.<field>``.

    ``instead`` is what to write in its place; ``why`` says why it is told and not proposed.
    """

    field: Field
    value: Any
    runs: int = 0
    last_run: str = ""
    instead: Any = None
    why: str = ""


def calls(lines: Iterable[str]) -> dict[str, list[str]]:
    """Give calls (lines of ``permissions.dicode``) by field."""
    found: dict[str, list[str]] = {}
    for line in lines:
        try:
            raw: Any = yaml.safe_load(line)
        except yaml.YAMLError:
            continue
        if isinstance(raw, dict):
            for name, value in cast("dict[str, Any]", raw).items():
                targets = cast("list[str]", value) if isinstance(value, list) else []
                found.setdefault(name, []).extend(targets)
    return found


def as_yaml(permissions: Mapping[str, Any]) -> str:
    """Write a block ready to be pasted into a manifest."""
    shown = {name: _brief(name, value) for name, value in permissions.items()}
    if not shown:
        return "permissions: {}\n"
    return yaml.safe_dump({"permissions": shown}, sort_keys=False, allow_unicode=True, width=1000)


def _brief(name: str, value: Any) -> Any:
    if name != "env":
        return value
    entries = cast("Sequence[Any]", value)
    return [entry["name"] if _is_name(entry) else entry for entry in entries]


def _is_name(entry: Any) -> bool:
    return isinstance(entry, dict) and list(cast("dict[str, Any]", entry)) == ["name"]


def as_line(finding: Finding) -> str:
    """Write what is found in one line."""
    return f"permissions.{finding.field}: {_inline(finding.value)}"


def instead_line(finding: Finding) -> str | None:
    """Write what should take its place in one line, None: nothing."""
    if finding.instead is None:
        return None
    return f"permissions.{finding.field}: {_inline(finding.instead)}"


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_inline(item) for item in cast('list[Any]', value))}]"
    if _is_name(value):
        return str(value["name"])
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.strip().removesuffix("...").strip()

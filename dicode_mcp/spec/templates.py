"""``${VAR}`` in the few fields that may hold it (SPEC 1, Templates). Pure.

Built-ins win over the process environment; unknown names stay as they are, so that a mistake is
seen instead of becoming an empty string.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

NO_ENVIRONMENT: Mapping[str, str] = {}
"""For fields where a host variable must not appear."""


def has_placeholder(text: str) -> bool:
    """Tell whether ``text`` still holds a ``${…}``."""
    return "${" in text


def expand(text: str, builtins: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Replace known ``${VAR}``; what is put in is not looked at again."""
    if "${" not in text:
        return text

    def replace(found: re.Match[str]) -> str:
        name = found.group(1)
        if name in builtins:
            return builtins[name]
        return environ.get(name, found.group())

    return _PLACEHOLDER.sub(replace, text)


def usable_environ(environ: Mapping[str, str], withheld: Collection[str]) -> dict[str, str]:
    """Give the variables a template may show: none of the server's own nor of its credentials."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("DICODE_") and name not in withheld
    }


def expand_manifest(
    data: Mapping[str, Any], builtins: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Give a raw manifest with templates expanded in the fields that allow them, nowhere else."""

    def full(text: str) -> str:
        return expand(text, builtins, environ)

    def literal(text: str) -> str:
        return expand(text, builtins, NO_ENVIRONMENT)

    out = dict(data)
    trigger = _as_map(out.get("trigger"))
    if trigger is not None:
        out["trigger"] = _with_text(trigger, "webhook_secret", full)
    permissions = _as_map(out.get("permissions"))
    if permissions is not None:
        changed = dict(permissions)
        if isinstance(permissions.get("fs"), list):
            changed["fs"] = [_fs(entry, full) for entry in cast(list[Any], permissions["fs"])]
        if isinstance(permissions.get("env"), list):
            entries = cast(list[Any], permissions["env"])
            changed["env"] = [_env(entry, full, literal) for entry in entries]
        out["permissions"] = changed
    return out


def _fs(entry: Any, full: Callable[[str], str]) -> Any:
    fields = _as_map(entry)
    return entry if fields is None else _with_text(fields, "path", full)


def _env(entry: Any, full: Callable[[str], str], literal: Callable[[str], str]) -> Any:
    if isinstance(entry, str):
        name, sign, value = entry.partition("=")
        return f"{name}={literal(value)}" if sign else entry
    fields = _as_map(entry)
    if fields is None:
        return entry
    out = _with_text(_with_text(fields, "from", full), "secret", full)
    return _with_text(out, "value", literal)


def _as_map(value: Any) -> dict[str, Any] | None:
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _with_text(fields: dict[str, Any], name: str, change: Callable[[str], str]) -> dict[str, Any]:
    value = fields.get(name)
    return {**fields, name: change(value)} if isinstance(value, str) else fields

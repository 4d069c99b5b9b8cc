"""The optional first line of a socket connection: what a client says of itself and how it narrows.

Pure: text in, values out. The protocol is described in ``dicode_mcp.tools.socket``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.principal import Principal

_KEYS = ("client", "hello", "read_only", "tasks", "toolsets", "version")
_CLIENTS = ("mcp", "cli")


@dataclass(frozen=True, slots=True)
class Preamble:
    """A parsed first line. ``toolsets`` and ``tasks`` are None when not narrowed."""

    client: str = "mcp"
    version: str = ""
    hello: bool = False
    read_only: bool = False
    toolsets: frozenset[str] | None = None
    tasks: str | None = None

    def narrow(self, principal: Principal) -> Principal:
        """Give ``principal`` with no more than this preamble leaves it."""
        return principal.narrowed(
            surface=self.client,
            read_only=self.read_only,
            toolsets=self.toolsets,
            tasks=self.tasks,
        )


def parse_preamble(line: bytes, toolsets: Iterable[str]) -> Preamble | None:
    """Read a connection's first line; None when it is no preamble but a message.

    Raises ``DicodeError(INVALID_ARGUMENT)`` for a preamble that is not understood whole: a key that
    was meant to narrow must never be passed over.
    """
    try:
        parsed: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or list(cast("dict[str, Any]", parsed)) != ["dicode"]:
        return None
    body = cast("dict[str, Any]", parsed)["dicode"]
    if not isinstance(body, dict):
        raise _refused("'dicode' must be an object")
    return _checked(cast("dict[str, Any]", body), sorted(toolsets))


def answer(version: str, pid: int, error: DicodeError | None = None) -> dict[str, Any]:
    """Give the server's line for a preamble or a refused connection."""
    body: dict[str, Any] = {"version": version, "pid": pid, "ok": error is None}
    if error is not None:
        body["error"] = error.as_dict()
    return {"dicode": body}


def _checked(body: dict[str, Any], toolsets: list[str]) -> Preamble:
    unknown = sorted(set(body) - set(_KEYS))
    if unknown:
        raise _refused(
            f"the server's version does not know {len(unknown)} of the keys in 'dicode'",
            hint=f"allowed: {', '.join(_KEYS)}; if the client is newer, run `dicode restart`",
        )
    for key in ("hello", "read_only"):
        if not isinstance(body.get(key, False), bool):
            raise _refused(f"'{key}' must be true or false")
    for key in ("version", "tasks"):
        if not isinstance(body.get(key, ""), str):
            raise _refused(f"'{key}' must be a string")
    if body.get("client", "mcp") not in _CLIENTS:
        raise _refused('\'client\' must be "mcp" or "cli"')
    return Preamble(
        client=body.get("client", "mcp"),
        version=body.get("version", "")[:64],
        hello=body.get("hello", False),
        read_only=body.get("read_only", False),
        toolsets=_toolsets(body.get("toolsets"), toolsets),
        tasks=body.get("tasks"),
    )


def _toolsets(value: Any, known: list[str]) -> frozenset[str] | None:
    if value is None:
        return None
    named = cast("list[Any]", value) if isinstance(value, list) else None
    if named is None or not all(isinstance(name, str) for name in named):
        raise _refused("'toolsets' must be a list of strings")
    if not set(named) <= set(known):
        raise _refused("'toolsets' names an unknown toolset", hint=f"allowed: {', '.join(known)}")
    return frozenset(cast("list[str]", named))


def _refused(message: str, hint: str | None = None) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, f"first line: {message}", hint=hint)

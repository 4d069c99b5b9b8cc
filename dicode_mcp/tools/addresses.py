"""Addresses of resources: ``dicode://tasks/{id}``, ``dicode://runs/{id}[/logs]``, ``dicode://sources``.

Pure. Ids are percent-encoded in the canonical form; an unencoded ``/`` in a task id is read too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

SCHEME = "dicode://"
Kind = Literal["task", "run", "logs", "sources"]

TOOLSET: dict[Kind, str] = {"task": "tasks", "run": "runs", "logs": "runs", "sources": "sources"}


@dataclass(frozen=True, slots=True)
class Address:
    """What a URI names. ``id`` is empty for the sources."""

    kind: Kind
    id: str = ""

    @property
    def uri(self) -> str:
        """The canonical URI."""
        encoded = quote(self.id, safe="")
        match self.kind:
            case "task":
                return f"{SCHEME}tasks/{encoded}"
            case "run":
                return f"{SCHEME}runs/{encoded}"
            case "logs":
                return f"{SCHEME}runs/{encoded}/logs"
            case "sources":
                return f"{SCHEME}sources"


def parse_address(uri: str) -> Address | None:
    """Read a URI; None when it names nothing of ours."""
    if not uri.startswith(SCHEME):
        return None
    kind, _, rest = uri.removeprefix(SCHEME).partition("/")
    if kind == "sources" and not rest:
        return Address("sources")
    if kind == "tasks" and rest:
        return Address("task", unquote(rest))
    if kind == "runs" and rest:
        run_id, _, part = rest.partition("/")
        if run_id and part in ("", "logs"):
            return Address("logs" if part else "run", unquote(run_id))
    return None

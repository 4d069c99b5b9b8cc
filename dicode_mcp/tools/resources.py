"""What can be read by address: tasks, runs with their whole values and logs, sources.

The same use cases as the tools, without their size limits.
"""

from __future__ import annotations

from typing import Any, Protocol

import mcp_types as t
from mcp import MCPError

from dicode_mcp.errors import DicodeError
from dicode_mcp.service import Services
from dicode_mcp.service.principal import Principal
from dicode_mcp.sources.task_files import MAX_READ_BYTES
from dicode_mcp.tools.addresses import TOOLSET, VERB, Address, Kind, parse_address
from dicode_mcp.tools.registry import encode

PAGE_SIZE = 100
MAX_LOG_LINES = 20_000
_LOG_PAGE = 1_000
_JSON = "application/json"

_TEXT = "text/plain"

TEMPLATES: tuple[tuple[str, Kind, str, str], ...] = (
    ("task", "task", "dicode://tasks/{id}", "One task whole, as get_task shows it."),
    ("task-file", "file", "dicode://tasks/{id}/files/{path}", "One text file of a task, whole."),
    (
        "task-pending",
        "pending",
        "dicode://tasks/{id}/pending",
        "The version of a task that waits for an approval, whole: what it may do, its changes.",
    ),
    ("run", "run", "dicode://runs/{id}", "One run with its whole return value and output."),
    ("run-logs", "logs", "dicode://runs/{id}/logs", "The log of a run, lines uncut."),
)


class ResourceBook(Protocol):
    """What can be listed and read by address."""

    async def list(
        self, principal: Principal, cursor: str | None
    ) -> tuple[list[t.Resource], str | None]:
        """Give a page, and the cursor of the next."""
        ...

    def templates(self, principal: Principal) -> list[t.ResourceTemplate]:
        """Give the forms of addresses."""
        ...

    async def read(
        self, principal: Principal, uri: str
    ) -> t.TextResourceContents | t.BlobResourceContents:
        """Read a resource; what is not there is ``MCPError`` (-32602) with the URI."""
        ...


class Resources:
    """The resources of this server."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(
        self, principal: Principal, cursor: str | None
    ) -> tuple[list[t.Resource], str | None]:
        """Give a page: the sources, then tasks by id. Runs are found by get_runs."""
        found: list[t.Resource] = []
        if cursor is None and _open(principal, "sources"):
            found.append(_resource(Address("sources"), "sources", "Where tasks come from."))
        if not _open(principal, "task"):
            return found, None
        try:
            page = await self._services.tasks.list(principal, limit=PAGE_SIZE, cursor=cursor)
        except DicodeError as error:
            raise MCPError(t.INVALID_PARAMS, error.message) from None
        for task in page["tasks"]:
            address = Address("task", task["id"])
            found.append(_resource(address, task["id"], task.get("description")))
        return found, page.get("next_cursor")

    def templates(self, principal: Principal) -> list[t.ResourceTemplate]:
        """Give the forms of addresses."""
        return [
            t.ResourceTemplate(
                uri_template=template,
                name=name,
                description=description,
                mime_type=_TEXT if kind == "file" else _JSON,
            )
            for name, kind, template, description in TEMPLATES
            if _open(principal, kind)
        ]

    async def read(self, principal: Principal, uri: str) -> t.TextResourceContents:
        """Read a resource; what is not there (or not the caller's) is -32602 with the URI."""
        address = parse_address(uri)
        if address is None or not _open(principal, address.kind):
            raise missing(uri, "no such resource; resources/templates/list has the forms")
        try:
            if address.kind == "file":
                return await self._file(principal, address, uri)
            value = await self._value(principal, address)
        except DicodeError as error:
            raise missing(uri, f"{error.message}. {error.hint or ''}".strip()) from None
        return t.TextResourceContents(uri=uri, mime_type=_JSON, text=encode(value)[1])

    async def _value(self, principal: Principal, address: Address) -> dict[str, Any]:
        match address.kind:
            case "task":
                return await self._services.tasks.get(principal, address.id)
            case "pending":
                return await self._services.approvals.pending(principal, address.id)
            case "run":
                return await self._services.runs.get(principal, address.id)
            case "logs":
                return await self._log(principal, address.id)
            case _:
                return await self._services.sources.list(principal)

    async def _file(
        self, principal: Principal, address: Address, uri: str
    ) -> t.TextResourceContents:
        found = await self._services.authoring.read(
            principal, address.id, address.path, most=MAX_READ_BYTES
        )
        return t.TextResourceContents(uri=uri, mime_type=_TEXT, text=found["content"])

    async def _log(self, principal: Principal, run_id: str) -> dict[str, Any]:
        lines: list[Any] = []
        after = 0
        while True:
            page = await self._services.runs.logs(principal, run_id, after=after, limit=_LOG_PAGE)
            lines += page["lines"]
            following = page.get("next_after")
            if following is None or len(lines) >= MAX_LOG_LINES:
                return {**page, "lines": lines}
            after = following


def _open(principal: Principal, kind: Kind) -> bool:
    in_toolset = principal.toolsets is None or TOOLSET[kind] in principal.toolsets
    return in_toolset and principal.allows(VERB[kind])


def _resource(address: Address, name: str, description: str | None) -> t.Resource:
    return t.Resource(
        uri=address.uri, name=name, description=description or f"Task {name}.", mime_type=_JSON
    )


def missing(uri: str, message: str) -> MCPError:
    """Give the protocol's error for a resource that is not there."""
    return MCPError(t.INVALID_PARAMS, f"Resource not found: {message}", {"uri": uri[:1024]})

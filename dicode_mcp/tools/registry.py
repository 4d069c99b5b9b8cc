"""The tools by name: which a caller sees, and the one way a call goes through.

It knows schemas, principals and results; what a tool does is in its handler.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import mcp_types as t
from mcp import MCPError

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service import Services
from dicode_mcp.service.principal import Principal
from dicode_mcp.tools import jobs
from dicode_mcp.tools.client import Client, NoClient
from dicode_mcp.tools.jobs import Job
from dicode_mcp.tools.paging import PAGE_SIZE, cut
from dicode_mcp.tools.questions import InputNeeded
from dicode_mcp.tools.validation import ArgumentCheck, clip, nearest

log = logging.getLogger(__name__)

ADMIN_TOOLSET = "admin"
"""Kept from agents: see ``Principal.administers``."""
TOOLSETS = ("tasks", "runs", "sources", "authoring", "sharing", "secrets", "status", ADMIN_TOOLSET)

Report = Callable[[float, float | None, str | None], Awaitable[None]]
"""Tells the caller how far a call is: done, total, message. Does nothing if nobody asked."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler may use: services, who asks, progress, time, and what its client can do."""

    services: Services
    principal: Principal
    report: Report
    clock: Clock
    client: Client = field(default_factory=NoClient)

    @property
    def takes_jobs(self) -> bool:
        """Whether the client takes a job in place of a result."""
        return self.client.extension(jobs.EXTENSION)


@dataclass(frozen=True, slots=True)
class Answer:
    """A tool's result: a JSON-able object, and links to what was left out of it."""

    value: dict[str, Any]
    links: tuple[t.ResourceLink, ...] = ()


@dataclass(frozen=True, slots=True)
class Content:
    """A tool's result that is content alone, for a tool without output schema."""

    blocks: tuple[t.ContentBlock, ...]


Result = Answer | Content | Job
Handler = Callable[[Call, dict[str, Any]], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class ToolDef:
    """A tool: how it is shown, who may use it (``verb``), and what it does.

    A handler may give a ``Job`` only to a caller that takes jobs; ``jobs="required"`` says that it
    has no other answer. ``by_asking`` is the verb that does instead of ``verb`` for the server's
    own user, where the tool itself asks a human for the rest. ``of_owner`` keeps it from every key.
    """

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None
    annotations: t.ToolAnnotations
    toolset: str
    verb: str
    handler: Handler = field(repr=False)
    jobs: Literal["optional", "required"] = "optional"
    by_asking: str | None = None
    of_owner: bool = False

    def hidden_from(self, principal: Principal) -> DicodeError | None:
        """Say why the caller may not use it, or None when it may."""
        own = self.by_asking is not None and principal.scopes is None
        verb = self.by_asking if own and self.by_asking else self.verb
        if why := hidden(self.name, self.toolset, verb, principal):
            return why
        return principal.lacks_owner() if self.of_owner else None

    def shown(self) -> t.Tool:
        """Give the tool as clients see it."""
        return t.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=dict(self.input_schema),
            output_schema=None if self.output_schema is None else _or_error(self.output_schema),
            annotations=self.annotations,
        )


class ToolRegistry:
    """A fixed set of tools."""

    def __init__(self, tools: Iterable[ToolDef], *, page_size: int = PAGE_SIZE) -> None:
        self._tools = {tool.name: tool for tool in sorted(tools, key=lambda tool: tool.name)}
        self._shown = {name: tool.shown() for name, tool in self._tools.items()}
        self._checks = {
            name: ArgumentCheck(name, tool.input_schema) for name, tool in self._tools.items()
        }
        self._page_size = page_size

    def names(self) -> tuple[str, ...]:
        """Give every tool's name, sorted."""
        return tuple(self._tools)

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """Give a tool's input schema, if there is such a tool."""
        tool = self._tools.get(name)
        return tool.input_schema if tool else None

    def page(self, principal: Principal, cursor: str | None) -> tuple[list[t.Tool], str | None]:
        """Give one page of the tools the caller may use, and the cursor of the next."""
        page, more = cut(self._seen(principal), cursor, self._page_size)
        return [self._shown[name] for name in page], more

    def _seen(self, principal: Principal) -> list[str]:
        return [name for name, tool in self._tools.items() if tool.hidden_from(principal) is None]

    async def call(
        self, name: str, arguments: Mapping[str, Any], call: Call
    ) -> t.CallToolResult | Job:
        """Check and run one call; whatever the model can mend is an ``isError`` result.

        Raises ``MCPError`` (-32602) for a tool that does not exist, (-32021) for what the client
        would have to declare, and ``InputNeeded``.
        """
        tool = self._tools.get(name)
        if tool is None:
            raise self._unknown(name, call.principal)
        if tool.jobs == "required" and not call.takes_jobs:
            raise jobs.required()
        try:
            refused = tool.hidden_from(call.principal)
            if refused is not None:
                call.services.trail.refused(call.principal, name, refused.code.value)
                raise refused
            result = await tool.handler(call, self._checks[name](arguments))
        except (MCPError, InputNeeded):
            raise
        except DicodeError as error:
            return failed(error)
        except Exception:
            log.exception("tool call failed", extra={"tool": name})
            return failed(
                DicodeError(
                    Code.INTERNAL,
                    f"{name} failed inside the server",
                    hint="the server's log has the details; get_status shows the server's state",
                )
            )
        return result if isinstance(result, Job) else succeeded(result)

    def _unknown(self, name: str, principal: Principal) -> MCPError:
        close = nearest(name, self._seen(principal))
        guess = f"; nearest: {', '.join(close)}" if close else ""
        return MCPError(t.INVALID_PARAMS, f"Unknown tool: {clip(name)}{guess}. Call tools/list.")


def _or_error(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give a result's schema that a failed call fits too: some clients check both.

    What is required is so unless there is an ``error``; not by anyOf, which some clients refuse.
    """
    shown = dict(schema)
    required = shown.pop("required", None)
    if required:
        shown |= {"if": {"not": {"required": ["error"]}}, "then": {"required": required}}
    return shown


def succeeded(answer: Answer | Content) -> t.CallToolResult:
    """Give an answer as a result: compact JSON text equal to the structured content, then links."""
    if isinstance(answer, Content):
        return t.CallToolResult(content=list(answer.blocks))
    value, text = encode(answer.value)
    return t.CallToolResult(
        content=[t.TextContent(type="text", text=text), *answer.links], structured_content=value
    )


def failed(error: DicodeError) -> t.CallToolResult:
    """Give an error as a result a model can read: ``{error: {code, message, hint?, data?}}``."""
    value, text = encode({"error": error.as_dict()})
    return t.CallToolResult(
        content=[t.TextContent(type="text", text=text)], structured_content=value, is_error=True
    )


def encode(value: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Give the value as it can go over the wire, and its compact JSON text."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # A task may return half of a surrogate pair; JSON allows it, UTF-8 does not.
        text = text.encode(errors="replace").decode()
        value = cast("dict[str, Any]", json.loads(text))
    return value, text


def hidden(name: str, toolset: str, verb: str, principal: Principal) -> DicodeError | None:
    """Say why the caller may not use a tool or prompt, or None when it may."""
    if principal.toolsets is not None and toolset not in principal.toolsets:
        return DicodeError(
            Code.FORBIDDEN,
            f"{name} belongs to the toolset '{toolset}', which this connection left out",
            hint=f"connect with --toolsets that include {toolset}",
        )
    try:
        if toolset == ADMIN_TOOLSET:
            principal.require_administration()
        principal.require(verb)
    except DicodeError as error:
        return error
    return None

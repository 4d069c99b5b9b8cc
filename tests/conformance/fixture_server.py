"""A server that offers what the conformance suite asks for, on the product's own machinery.

Only the tools, prompts and resources are the fixture's; registry, hub, questions, jobs, handlers,
transports and guards are the product's. ``python tests/conformance/fixture_server.py PORT`` serves
it by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import mcp_types as t
from fixture_jobs import MemoryJobs, job_tools
from fixture_parts import PNG, image_block, text_resource
from fixture_rounds import ASKING_PROMPT, round_tools
from fixture_tools import plain_tools

from dicode_mcp.clock import SystemClock
from dicode_mcp.events import EventBus
from dicode_mcp.service import Services
from dicode_mcp.service.principal import Principal
from dicode_mcp.testing.callers import outsiders
from dicode_mcp.tools.completions import Completions
from dicode_mcp.tools.hub import Hub
from dicode_mcp.tools.prompts import Argument, PromptBook, PromptDef, PromptHandler, user_text
from dicode_mcp.tools.registry import Call, ToolRegistry
from dicode_mcp.tools.resources import missing
from dicode_mcp.tools.server import McpServer, Offer, create_mcp_server
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.server import HttpServer

_TEMPLATE = "test://template/"


class FixtureResources:
    """Three resources and a template."""

    async def list(
        self, principal: Principal, cursor: str | None
    ) -> tuple[list[t.Resource], str | None]:
        names = ("static-text", "static-binary", "watched-resource")
        return [
            t.Resource(uri=f"test://{name}", name=name, description=f"The {name} fixture.")
            for name in names
        ], None

    def templates(self, principal: Principal) -> list[t.ResourceTemplate]:
        uri = _TEMPLATE + "{id}/data"
        return [t.ResourceTemplate(uri_template=uri, name="template", description="By id.")]

    async def read(
        self, principal: Principal, uri: str
    ) -> t.TextResourceContents | t.BlobResourceContents:
        if uri == "test://static-binary":
            return t.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
        if uri in ("test://static-text", "test://watched-resource"):
            text = "This is the content of the static text resource."
            return t.TextResourceContents(uri=uri, mime_type="text/plain", text=text)
        if uri.startswith(_TEMPLATE):
            number = uri.removeprefix(_TEMPLATE).partition("/")[0]
            data = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
            return t.TextResourceContents(
                uri=uri, mime_type="application/json", text=json.dumps(data)
            )
        raise missing(uri, "no such resource")


async def _letters(call: Call, typed: str) -> Sequence[str]:
    return [word for word in ("paris", "park", "party") if word.startswith(typed)]


async def _simple(call: Call, args: Mapping[str, str]) -> Sequence[t.PromptMessage]:
    return [user_text("This is a simple prompt for testing.")]


async def _with_arguments(call: Call, args: Mapping[str, str]) -> Sequence[t.PromptMessage]:
    return [user_text(f"Prompt with arguments: arg1='{args['arg1']}', arg2='{args['arg2']}'")]


async def _with_resource(call: Call, args: Mapping[str, str]) -> Sequence[t.PromptMessage]:
    block = text_resource(
        args["resourceUri"], "text/plain", "Embedded resource content for testing."
    )
    return [
        t.PromptMessage(role="user", content=block),
        user_text("Please process the embedded resource above."),
    ]


async def _with_image(call: Call, args: Mapping[str, str]) -> Sequence[t.PromptMessage]:
    return [
        t.PromptMessage(role="user", content=image_block()),
        user_text("Please analyze the image above."),
    ]


def _prompt(name: str, handler: PromptHandler, *names: str) -> PromptDef:
    return PromptDef(
        name=name,
        title=name,
        description=f"Conformance fixture: {name}.",
        arguments=tuple(Argument(n, f"The argument {n}.", complete=_letters) for n in names),
        toolset="status",
        verb="read",
        handler=handler,
    )


PROMPTS = (
    _prompt("test_simple_prompt", _simple),
    _prompt("test_prompt_with_arguments", _with_arguments, "arg1", "arg2"),
    _prompt("test_prompt_with_embedded_resource", _with_resource, "resourceUri"),
    _prompt("test_prompt_with_image", _with_image),
    ASKING_PROMPT,
)


def make_server(hub: Hub, jobs: MemoryJobs) -> McpServer:
    """Build the MCP server of the fixture."""
    tools = [
        *plain_tools(hub.tools_changed, hub.prompts_changed),
        *round_tools(),
        *job_tools(jobs),
    ]
    prompts = PromptBook(PROMPTS)
    offer = Offer(
        tools=ToolRegistry(tools),
        prompts=prompts,
        resources=FixtureResources(),
        completions=Completions(prompts),
        jobs=jobs,
    )
    # No tool of the fixture uses a service.
    services = cast("Services", None)
    return create_mcp_server(services, hub, version="1.0.0", offer=offer)


@asynccontextmanager
async def fixture_server(port: int = 0) -> AsyncGenerator[str]:
    """Serve the fixture over HTTP while the block lasts; gives its base URL."""
    hub = Hub(EventBus(), gather_s=0.02)
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(hub.run())
        async with asyncio.TaskGroup() as works:
            jobs = MemoryJobs(SystemClock(), works)
            server = make_server(hub, jobs)
            app = create_app(
                cast("Any", server),
                WebSettings(own_uid=os.geteuid(), judge=outsiders()),
                readiness=lambda: Readiness.READY,
            )
            async with HttpServer(app, port=port, on_stop=hub.close).listening() as where:
                yield where.url
            jobs.close()
        telling.cancel()


async def main(port: int) -> None:
    """Serve until interrupted."""
    async with fixture_server(port) as url:
        print(url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 8770))

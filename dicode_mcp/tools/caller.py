"""Who is behind an MCP request, and the connection it came on.

The only module that reaches into the SDK's private names; a test proves that they are still there.
"""

from __future__ import annotations

from typing import Any

import mcp_types as t
from mcp import MCPError
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from dicode_mcp.service.principal import Principal

Context = ServerRequestContext[Any, Any]


def principal_of(ctx: Context) -> Principal:
    """Give the caller's principal; refuses the request when nothing has established one.

    Over HTTP the app's guard sets ``request.state.principal`` on each request; other transports
    serve a connection with its principal as the lifespan state.
    """
    found: Any = ctx.lifespan_context
    if ctx.request is not None:
        found = getattr(ctx.request.state, "principal", None)
    if not isinstance(found, Principal):
        raise MCPError(t.INVALID_REQUEST, "The caller is not authenticated.")
    return found


def connection_of(ctx: Context) -> Connection:
    """Give the connection, the only handle that outlives a request."""
    return ctx.session._connection  # pyright: ignore[reportPrivateUsage]


def is_modern(ctx: Context) -> bool:
    """Tell whether the request is of the era without handshake."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS

"""What a caller without a right key is told of how to get one (``WWW-Authenticate``, RFC 9728)."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

METADATA = "/.well-known/oauth-protected-resource"
"""Where the metadata of this resource server is, with an identity provider."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """``metadata``: there is an identity provider, whose metadata this server shows.

    ``public_url`` is what the server is called from outside.
    """

    metadata: bool = False
    public_url: str | None = None

    def base(self, scope: Scope) -> str:
        """Give the server's own address as this caller knows it, without a slash at its end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        # The Host was checked before: it names this server.
        return f"{scope.get('scheme', 'http')}://{Headers(scope=scope).get('host', '')}"

    def of(self, scope: Scope, status: int = 401) -> str:
        """Give the header for an answer of status 401, or 403 where a token lacks a scope."""
        parts = ['Bearer realm="dicode"']
        if self.metadata:
            path = "/mcp" if scope["path"].startswith("/mcp") else ""
            parts.append(f'resource_metadata="{self.base(scope)}{METADATA}{path}"')
        if status == 403:
            parts.append('error="insufficient_scope"')
        elif "authorization" in Headers(scope=scope):
            parts.append('error="invalid_token"')
        return ", ".join(parts)

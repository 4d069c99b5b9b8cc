"""The identity provider whose tokens the server takes beside its own keys."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from dicode_mcp.config.addresses import check_public_url
from dicode_mcp.spec.base import Model, checked
from dicode_mcp.spec.fields import Line

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def check_provider_url(text: str) -> str:
    """Give an address that is believed: https, or http on this machine. Raises ``ValueError``."""
    check_public_url(text)
    parts = urlsplit(text)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return text
    raise ValueError("must be https: whoever answers there decides who may call this server")


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class OAuthConfig(Model):
    """An OAuth 2.1 authorization server. ``issuer`` is compared with the token's to the letter."""

    issuer: Annotated[Line, AfterValidator(checked(check_provider_url))]
    audience: Annotated[tuple[Line, ...], BeforeValidator(_several)] = ()
    jwks_url: Annotated[Line, AfterValidator(checked(check_provider_url))] | None = None
    scopes_claim: Annotated[Line, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")] = "scope"
    required_scopes: tuple[Line, ...] = ()

"""This server as an OAuth 2.1 resource server: tokens of an identity provider, and our metadata.

A token is a signed JWT for this server, of the configured issuer. What its scopes say is read as
our own scopes are; others that stand beside them mean nothing here. Who the provider lets in is
the provider's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.clock import Clock
from dicode_mcp.config import ServerConfig
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.principal import Principal, key_principal
from dicode_mcp.service.scopes import VERBS, Scope, read_scope
from dicode_mcp.web.bearers import Proven
from dicode_mcp.web.challenge import METADATA, Challenge
from dicode_mcp.web.jwks import Fetch, KeySet

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""By kind of key. None of them takes a shared secret, so no public key can be used as one."""
LEEWAY_S = 30
MAX_TOKEN = 16 * 1024
PREFIX = "dicode:"
"""May stand before a scope, where a provider wants names of its own for each server."""
_SHOWN = 96


@dataclass(frozen=True, slots=True)
class Provider:
    """What is believed: see ``server.oauth`` of the configuration."""

    issuer: str
    audiences: frozenset[str]
    jwks_url: str | None = None
    scopes_claim: str = "scope"
    required_scopes: frozenset[str] = frozenset()


def provider_of(server: ServerConfig) -> Provider | None:
    """Give the provider that a configuration names, if it names one."""
    oauth = server.oauth
    if oauth is None:
        return None
    public = server.public_url
    return Provider(
        issuer=oauth.issuer,
        audiences=frozenset(oauth.audience or ((public, f"{public}/mcp") if public else ())),
        jwks_url=oauth.jwks_url,
        scopes_claim=oauth.scopes_claim,
        required_scopes=frozenset(oauth.required_scopes),
    )


class Identity:
    """Judges tokens, and tells clients where to get one. Belongs to one event loop."""

    open_paths = frozenset({METADATA, f"{METADATA}/mcp"})

    def __init__(
        self,
        provider: Provider,
        clock: Clock,
        *,
        public_url: str | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._challenge = Challenge(True, public_url)
        self._keys = KeySet(provider.issuer, provider.jwks_url, clock, fetch)

    # ── Tokens ──

    async def verify(self, token: str, surface: str) -> Proven:
        """Give whom a token proves. Raises UNAUTHENTICATED, FORBIDDEN, UNREACHABLE."""
        if len(token) > MAX_TOKEN:
            raise _wrong()
        try:
            kid, algorithm = _head(token)
            key = await self._keys.key(kid)
            claims = _signed(token, key, algorithm)
            principal, ends_s = self._believed(claims, surface)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            # One answer for all that can be wrong, and nothing of the token in it.
            raise _wrong() from None
        return Proven(principal, (ends_s + LEEWAY_S) * 1000)

    def _believed(self, claims: Mapping[str, Any], surface: str) -> tuple[Principal, int]:
        """Check whom and what a signed token is for; raises ``ValueError``."""
        provider, now_s = self._provider, self._clock.now_ms() // 1000
        if claims.get("iss") != provider.issuer:
            raise ValueError
        if not provider.audiences & _texts(claims.get("aud"), split=False):
            raise ValueError
        ends_s = _seconds(claims["exp"] if "exp" in claims else None)
        if now_s >= ends_s + LEEWAY_S:
            raise ValueError
        for name in ("nbf", "iat"):
            if name in claims and _seconds(claims[name]) > now_s + LEEWAY_S:
                raise ValueError
        said = _texts(claims.get(provider.scopes_claim))
        if provider.scopes_claim == "scope":
            said |= _texts(claims.get("scp"))
        if not provider.required_scopes <= said:
            raise _lacks("one that server.oauth.required_scopes names")
        scopes = frozenset(scope for text in said if (scope := _own_scope(text)) is not None)
        if not scopes:
            raise _lacks(f"any of this server's: {', '.join(VERBS)}, each with or without :GLOB")
        subject = claims.get("sub") or claims.get("client_id") or claims.get("azp")
        if not isinstance(subject, str):
            raise ValueError
        return self._principal(subject, claims.get("client_id"), scopes, surface), ends_s

    def _principal(
        self, subject: str, client: Any, scopes: frozenset[Scope], surface: str
    ) -> Principal:
        # Digested: it is compared and counted, and a subject may be of any length.
        words = "\0".join((self._provider.issuer, subject, str(client or "")))
        credential = f"oauth:{hashlib.sha256(words.encode()).hexdigest()[:32]}"
        shown = "".join(c for c in subject if c.isprintable())[:_SHOWN]
        return key_principal(f"oauth:{shown}", surface, scopes, credential)

    # ── Metadata (RFC 9728) ──

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``; anybody may read them."""
        return [
            Route(METADATA, self._metadata("")),
            Route(f"{METADATA}/mcp", self._metadata("/mcp")),
        ]

    def _metadata(self, path: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            document = {
                "resource": f"{self._challenge.base(request.scope)}{path}",
                "resource_name": "dicode",
                "authorization_servers": [self._provider.issuer],
                "scopes_supported": sorted({*VERBS, *self._provider.required_scopes}),
                "bearer_methods_supported": ["header"],
            }
            return JSONResponse(document, headers={"cache-control": "max-age=300"})

        return answer


def _head(token: str) -> tuple[str, str]:
    """Read which key and algorithm a token says it is signed with."""
    head = jwt.get_unverified_header(token)
    return str(head.get("kid", "")), str(head.get("alg", ""))


def _signed(token: str, key: Mapping[str, Any] | None, algorithm: str) -> dict[str, Any]:
    """Give the claims of a token that this key has signed; raises ``PyJWTError``."""
    kind = str(key.get("kty", "")) if key else ""
    if key is None or algorithm not in ALGORITHMS.get(kind, ()):
        raise jwt.InvalidTokenError
    if key.get("alg", algorithm) != algorithm:
        raise jwt.InvalidTokenError
    return jwt.decode(
        token,
        jwt.PyJWK(dict(key), algorithm=algorithm),
        algorithms=[algorithm],
        options={
            "verify_signature": True,
            "enforce_minimum_key_length": True,
            # Times, issuer and audience are judged by our own clock and rules.
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_aud": False,
            "verify_iss": False,
        },
    )


def _texts(value: Any, *, split: bool = True) -> set[str]:
    """Read a claim that is a text or a list of texts."""
    if isinstance(value, str):
        return set(value.split()) if split else {value}
    if not isinstance(value, list):
        return set()
    return {item for item in cast("list[Any]", value) if isinstance(item, str)}


def _seconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return int(value)


def _own_scope(text: str) -> Scope | None:
    try:
        return read_scope(text.removeprefix(PREFIX))
    except DicodeError:
        return None


def _wrong() -> DicodeError:
    return DicodeError(
        Code.UNAUTHENTICATED,
        "the token is not valid here: its signature, issuer, audience or time is wrong",
        hint="get a new one for this server from its identity provider, or use a key (dck_…)",
    )


def _lacks(what: str) -> DicodeError:
    return DicodeError(
        Code.FORBIDDEN,
        f"the token lacks a scope: {what}",
        hint="ask the identity provider for a token with it",
    )

"""The public keys of an identity provider: fetched when they are needed, kept for a while.

Whatever tokens come, the provider is asked at most every ``RETRY_S``; what it answers is bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry

log = logging.getLogger("dicode.identity")

FRESH_S = 600.0
"""How long keys are used without a look whether there are others."""
STALE_S = 24 * 3600.0
"""How long they are used while the provider does not answer."""
RETRY_S = 15.0
"""The least time between two looks, whoever asks and however they end."""
TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024
MAX_KEYS = 64

Fetch = Callable[[str], dict[str, Any]]
"""Gives the JSON object at an address; blocks. Raises ``OSError`` or ``ValueError``."""

_OPENID = "/.well-known/openid-configuration"
_OAUTH = "/.well-known/oauth-authorization-server"


class KeySet:
    """The keys of one issuer by id. Belongs to one event loop."""

    def __init__(
        self, issuer: str, jwks_url: str | None, clock: Clock, fetch: Fetch | None = None
    ) -> None:
        self._issuer = issuer
        self._url = jwks_url
        self._clock = clock
        self._fetch = fetch or fetch_json
        self._keys: Mapping[str, dict[str, Any]] = {}
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._looking = asyncio.Lock()

    async def key(self, kid: str) -> dict[str, Any] | None:
        """Give the key of an id as it was published; None when the provider has none such.

        Raises UNREACHABLE when the provider has not answered for so long that nobody can tell.
        """
        if kid not in self._keys or self._age(self._fetched_at) >= FRESH_S:
            async with self._looking:
                # Somebody who waited with us may have looked for both.
                if kid not in self._keys or self._age(self._fetched_at) >= FRESH_S:
                    await self._look()
        if self._age(self._fetched_at) >= STALE_S:
            raise DicodeError(
                Code.UNREACHABLE,
                "the identity provider does not answer, so its tokens cannot be checked",
                hint="call again in a moment, or with a key of this server (dck_…)",
                retry=Retry.BACKOFF,
            )
        return self._keys.get(kid)

    async def _look(self) -> None:
        if self._age(self._asked_at) < RETRY_S:
            return
        self._asked_at = self._clock.monotonic()
        try:
            self._keys = await asyncio.to_thread(self._read)
        except (OSError, ValueError) as error:
            log.warning("the keys of the identity provider cannot be read: %s", str(error)[:200])
            return
        self._fetched_at = self._clock.monotonic()

    def _read(self) -> dict[str, dict[str, Any]]:
        found = self._fetch(self._url or self._discovered()).get("keys")
        if not isinstance(found, list):
            raise ValueError("the answer has no list of keys")
        listed = cast("list[Any]", found)[:MAX_KEYS]
        keys = [cast("dict[str, Any]", key) for key in listed if isinstance(key, dict)]
        return {str(key.get("kid", "")): key for key in keys if key.get("use", "sig") == "sig"}

    def _discovered(self) -> str:
        """Find where the issuer publishes its keys; it must name itself as we do."""
        trouble: Exception | None = None
        for place in _places(self._issuer):
            try:
                document = self._fetch(place)
            except (OSError, ValueError) as error:
                trouble = error
                continue
            if document.get("issuer") != self._issuer:
                raise ValueError("the provider's metadata names another issuer")
            url = document.get("jwks_uri")
            if not isinstance(url, str) or not url.startswith(("https://", "http://")):
                raise ValueError("the provider's metadata has no jwks_uri")
            if url.startswith("http://") and not self._issuer.startswith("http://"):
                raise ValueError("the provider's jwks_uri is not https")
            return url
        raise trouble or ValueError("the provider has no metadata")

    def _age(self, at: float | None) -> float:
        return float("inf") if at is None else self._clock.monotonic() - at


def _places(issuer: str) -> list[str]:
    """Give where an issuer's metadata may be, the usual first (OpenID Connect, RFC 8414)."""
    base, parts = issuer.rstrip("/"), urlsplit(issuer)
    inserted = f"{parts.scheme}://{parts.netloc}{_OAUTH}{parts.path.rstrip('/')}"
    return list(dict.fromkeys((f"{base}{_OPENID}", inserted, f"{base}{_OAUTH}")))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow none: the address was the user's choice, and no other is believed."""
        return None


def fetch_json(url: str) -> dict[str, Any]:
    """Give the JSON object at an address of the configuration; blocks."""
    opener = urllib.request.build_opener(_NoRedirects)
    request = urllib.request.Request(url, headers={"accept": "application/json"})
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"status {error.code}") from None
    if len(body) > MAX_BYTES:
        raise ValueError("the answer is too long")
    parsed: object = json.loads(body)
    if not isinstance(parsed, dict):
        raise ValueError("the answer is not a JSON object")
    return cast("dict[str, Any]", parsed)

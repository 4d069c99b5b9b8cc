"""Push webhooks of git sources: whether a message is the forge's own, and the pull it asks for.

What a message says is not read: it only wakes, and the remote itself is asked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal

_GITHUB = "x-hub-signature-256"
_GITEA = "x-gitea-signature"
_GITLAB = "x-gitlab-token"
HEADERS = (_GITHUB, _GITEA, _GITLAB)
"""The headers that prove a message, one or more of them."""

_ACTION = "push_hook"
_REST_S = 60.0
_ACTOR = Principal("push webhook", "http", verbs=frozenset())


@dataclass(frozen=True, slots=True)
class PushHook:
    """One source's webhook."""

    url: str
    secret: str = field(repr=False)


class Puller(Protocol):
    """Pulls repositories."""

    async def push_hint(self, url: str) -> int:
        """Pull every followed ref of ``url`` soon; gives how many there are."""
        ...


class PushService:
    """Takes push messages."""

    def __init__(
        self, hooks: Mapping[str, PushHook], puller: Puller, audit: Audit, clock: Clock
    ) -> None:
        self._hooks = hooks
        self._puller = puller
        self._audit = audit
        self._clock = clock
        self._refused_at: dict[str, float] = {}

    def serves(self, source: str) -> bool:
        """Tell whether a source has a webhook whose secret is set."""
        return source in self._hooks

    async def pushed(self, source: str, headers: Mapping[str, str], body: bytes) -> int:
        """Pull a source soon; gives how many of its refs.

        ``headers`` by lower-case name. Raises NOT_FOUND for a source that has no webhook,
        UNAUTHENTICATED without any proof, FORBIDDEN with a wrong one.
        """
        hook = self._hooks.get(source)
        if hook is None:
            raise DicodeError(
                Code.NOT_FOUND,
                "no source of this name listens for pushes",
                hint="set push_secret_env on the git source, and its variable",
            )
        try:
            _require_proof(hook.secret.encode(), headers, body)
        except DicodeError as error:
            self._note_refused(source, error)
            raise
        self._audit.note(_ACTOR, _ACTION, source, "ok")
        return await self._puller.push_hint(hook.url)

    def _note_refused(self, source: str, error: DicodeError) -> None:
        """Note a refusal, but not each of a flood: anybody may send one."""
        now = self._clock.monotonic()
        if now - self._refused_at.get(source, -_REST_S) >= _REST_S:
            self._refused_at[source] = now
            self._audit.note(_ACTOR, _ACTION, source, error.code.value)


def _require_proof(secret: bytes, headers: Mapping[str, str], body: bytes) -> None:
    """Want every proof that is there to be right, and one at least."""
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
    wanted = {_GITHUB: b"sha256=" + digest, _GITEA: digest, _GITLAB: secret}
    given = {name: headers[name].encode("latin-1", "replace") for name in wanted if name in headers}
    if not given:
        raise DicodeError(
            Code.UNAUTHENTICATED,
            "the message carries no proof of who sent it",
            hint=f"set the webhook's secret where it is sent from; one of {', '.join(HEADERS)}",
        )
    right = [hmac.compare_digest(value, wanted[name]) for name, value in given.items()]
    if not all(right):
        raise DicodeError(
            Code.FORBIDDEN,
            "the message's signature or token is wrong",
            hint="use the same secret in the forge's webhook and in push_secret_env's variable",
        )

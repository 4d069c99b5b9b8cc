"""Bearer keys of callers: made once, shown once, known afterwards by their digest alone."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets as randomness
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import BearerKey
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.leases import Leases
from dicode_mcp.service.principal import Principal, key_principal
from dicode_mcp.service.scopes import Scope, read_scopes
from dicode_mcp.spec.quantities import parse_duration

log = logging.getLogger("dicode.keys")

PREFIX = "dck_"
_TEXT = re.compile(r"dck_([a-z0-9]{10})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_NOTE_EVERY_MS = 60_000
"""How exact ``last_used`` is: a write for each call would cost more than the call."""
MAX_KEYS = 1_000
ACTOR = "key:"
"""What the actor of a key begins with: ``key:NAME#ID``. A name may be given again, an id never."""


class KeyRows(Protocol):
    """Where keys are kept."""

    async def put_key(self, key: BearerKey) -> None:
        """Keep a key; one of the same id is replaced."""
        ...


class Keys:
    """The keys of a server. Belongs to one event loop.

    ``leases`` is told of each key that is revoked.
    """

    def __init__(
        self,
        rows: KeyRows,
        stored: Iterable[BearerKey],
        audit: Audit,
        clock: Clock,
        leases: Leases | None = None,
    ) -> None:
        self._rows = rows
        self.leases = leases or Leases(clock)
        # One change at a time, so that no older state of a key is stored after a newer one.
        self._changing = asyncio.Lock()
        self._keys = {key.id: key for key in stored}
        self._audit = audit
        self._clock = clock

    @property
    def usable(self) -> bool:
        """Whether there is a key that is neither revoked nor expired."""
        return any(self._state(key) == "active" for key in self._keys.values())

    # ── Who calls ──

    async def authenticate(self, text: str, surface: str) -> Principal:
        """Give the principal of a key; raises UNAUTHENTICATED, the same for every wrong one."""
        match = _TEXT.fullmatch(text)
        key = self._keys.get(match[1]) if match else None
        # Compared even when there is no such key, so that time tells nothing.
        right = hmac.compare_digest(_digest(text), key.digest if key else _NO_DIGEST)
        if key is None or not right or self._state(key) != "active":
            raise DicodeError(
                Code.UNAUTHENTICATED,
                "the key is not valid: unknown, revoked or expired",
                hint="dicode keys list shows the keys there are; dicode keys create makes one",
            )
        await self._note_use(key.id)
        return _principal(key, surface)

    def ends_ms(self, credential: str) -> int | None:
        """Give when a key ends by itself (epoch ms), if it does."""
        key = self._keys.get(credential.removeprefix(ACTOR))
        return key.expires_at_ms if key else None

    def may(self, actor: str, verb: str, task_id: str) -> bool:
        """Tell whether the key behind an actor may do ``verb`` on a task now.

        True for whoever is no key: another than the keys judges them.
        """
        if not actor.startswith(ACTOR):
            return True
        key = self._keys.get(actor.rpartition("#")[2])
        if key is None or self._state(key) != "active":
            return False
        return _principal(key, "http").allows(verb, task_id)

    def holds(self, actor: str) -> bool:
        """Tell whether the key behind an actor is in force; True for whoever is no key."""
        if not actor.startswith(ACTOR):
            return True
        key = self._keys.get(actor.rpartition("#")[2])
        return key is not None and self._state(key) == "active"

    async def _note_use(self, key_id: str) -> None:
        if not self._is_to_be_noted(self._keys[key_id]):
            return
        async with self._changing:
            key = self._keys[key_id]
            if not self._is_to_be_noted(key):
                return
            used = replace(key, last_used_at_ms=self._clock.now_ms())
            self._keys[key_id] = used
            try:
                await self._rows.put_key(used)
            except DicodeError as error:
                # A store that cannot write must not shut out those who have a right key.
                log.warning("the use of a key was not stored: %s", error.message)

    def _is_to_be_noted(self, key: BearerKey) -> bool:
        last = key.last_used_at_ms
        return last is None or self._clock.now_ms() - last >= _NOTE_EVERY_MS

    # ── Their administration ──

    async def create(
        self,
        principal: Principal,
        name: str,
        scopes: Iterable[str],
        *,
        expires: str | None = None,
        expires_s: float | None = None,
    ) -> dict[str, Any]:
        """Make a key: ``{key, id, name, scopes, expires_at?}``. It is shown here and never again.

        ``expires`` is how long it lasts as text (``90d``), ``expires_s`` the same in seconds.
        Nobody gives away more than he has. Raises INVALID_ARGUMENT, CONFLICT, FORBIDDEN.
        """
        async with self._audit.action(principal, "keys_create", name[:64]):
            principal.require_administration()
            wanted = read_scopes(scopes)
            self._require_own(principal, wanted)
            if expires is not None:
                expires_s = _lasting(expires)
            async with self._changing:
                self._check(name, expires_s)
                now = self._clock.now_ms()
                key_id = "".join(randomness.choice(_ID_LETTERS) for _ in range(10))
                text = f"{PREFIX}{key_id}_{randomness.token_urlsafe(32)}"
                key = BearerKey(
                    id=key_id,
                    name=name,
                    digest=_digest(text),
                    scopes=tuple(sorted(map(str, wanted))),
                    created_at_ms=now,
                    created_by=principal.actor,
                    expires_at_ms=None if expires_s is None else now + round(expires_s * 1000),
                )
                await self._rows.put_key(key)
                self._keys[key.id] = key
        return {"key": text, **self._view(key)}

    def list(self, principal: Principal) -> dict[str, Any]:
        """Show every key, newest first, and none of them: ``{keys: […]}``."""
        principal.require_administration()
        keys = sorted(self._keys.values(), key=lambda key: (-key.created_at_ms, key.id))
        return {"keys": [self._view(key) for key in keys]}

    async def revoke(self, principal: Principal, key: str) -> dict[str, Any]:
        """End a key, by id or by name, at once, and what is open under it. Raises NOT_FOUND."""
        async with self._audit.action(principal, "keys_revoke", _shown_name(key)):
            principal.require_administration()
            found = self._named(key)
            async with self._changing:
                found = self._keys[found.id]
                if found.revoked_at_ms is None:
                    found = replace(found, revoked_at_ms=self._clock.now_ms())
                # In force before it is stored, and stored again when it was revoked before: a
                # write that failed leaves it shut, and the command can be repeated.
                self._keys[found.id] = found
                self.leases.end(_credential(found))
                await self._rows.put_key(found)
        return self._view(found)

    def _named(self, key: str) -> BearerKey:
        if key in self._keys:
            return self._keys[key]
        named = [k for k in self._keys.values() if k.name == key and self._state(k) == "active"]
        if not named:
            raise DicodeError(
                Code.NOT_FOUND, "there is no such key", hint="dicode keys list shows them"
            )
        return named[0]

    def _check(self, name: str, expires_s: float | None) -> None:
        if not _NAME.fullmatch(name):
            raise _invalid("this is not a key's name", "1 to 64 of A-Z a-z 0-9 space . _ @ -")
        if any(k.name == name and self._state(k) == "active" for k in self._keys.values()):
            raise DicodeError(
                Code.CONFLICT,
                f"there is a key named '{name}' already",
                hint=f"revoke it first (dicode keys revoke '{name}'), or take another name",
            )
        if expires_s is not None and not 60 <= expires_s <= 3650 * 86400:
            raise _invalid("a key lasts between a minute and ten years", "for example 90d")
        if sum(self._state(k) == "active" for k in self._keys.values()) >= MAX_KEYS:
            raise _invalid(f"there are {MAX_KEYS} keys", "revoke those that nobody uses")

    def _require_own(self, principal: Principal, wanted: frozenset[Scope]) -> None:
        """Refuse scopes its maker lacks; the server's own user may give any away, at a terminal."""
        if principal.scopes is None:
            return
        lacking = [str(s) for s in sorted(wanted) if not _within(s, principal.scopes)]
        if lacking:
            raise DicodeError(
                Code.FORBIDDEN,
                f"not allowed: the caller's own key lacks {', '.join(lacking)}",
                hint="nobody gives away more than he has; ask the server's owner",
            )

    def _state(self, key: BearerKey) -> str:
        if key.revoked_at_ms is not None:
            return "revoked"
        expired = key.expires_at_ms is not None and key.expires_at_ms <= self._clock.now_ms()
        return "expired" if expired else "active"

    def _view(self, key: BearerKey) -> dict[str, Any]:
        view: dict[str, Any] = {
            "id": key.id,
            "name": key.name,
            "scopes": list(key.scopes),
            "state": self._state(key),
            "created_at": iso(key.created_at_ms),
            "created_by": key.created_by,
        }
        times = {
            "expires_at": key.expires_at_ms,
            "last_used_at": key.last_used_at_ms,
            "revoked_at": key.revoked_at_ms,
        }
        return view | {name: iso(at) for name, at in times.items() if at is not None}


def _credential(key: BearerKey) -> str:
    return f"{ACTOR}{key.id}"


def _principal(key: BearerKey, surface: str) -> Principal:
    actor = f"{ACTOR}{key.name}#{key.id}"
    return key_principal(actor, surface, read_scopes(key.scopes), _credential(key))


def _lasting(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise _invalid(f"expires {error}", "for example 90d, or leave it out") from None


def _shown_name(text: str) -> str:
    """Give a key's name or id for the audit; a key itself, given by mistake, is not shown."""
    return "(a key)" if PREFIX in text else text[:64]


def _within(scope: Scope, own: frozenset[Scope]) -> bool:
    """Tell whether ``scope`` is certainly part of ``own``: equal, or below a ``*`` of its verb."""
    return any(mine.verb == scope.verb and mine.glob in ("*", scope.glob) for mine in own)


def _digest(text: str) -> str:
    # The key has 256 random bits: a fast digest is as good as a slow one.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_NO_DIGEST = _digest("")


def _invalid(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)

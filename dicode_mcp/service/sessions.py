"""Sessions of the owner in a browser: begun with the passphrase, ended by time, by him, or with it.

They are in memory alone, known by the digest of their token: a restart ends them.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.login_attempts import LoginAttempts
from dicode_mcp.service.passphrases import Kept, Passphrase
from dicode_mcp.service.principal import LOCAL_VERBS, Principal, key_principal
from dicode_mcp.service.scopes import Scope

ACTOR = "owner"
IDLE_S = 2 * 3600.0
LASTS_S = 24 * 3600.0
MOST = 100
MOST_WAITING = 8
"""Logins that wait for their turn; further ones are told to come later."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session. ``id`` may be shown; who has the token has the session."""

    id: str
    digest: str
    form_key: bytes
    begun_s: float
    used_s: float

    @property
    def credential(self) -> str:
        """What names it as a proof."""
        return f"session:{self.id}"

    @property
    def principal(self) -> Principal:
        """The owner: as at his terminal, but for what is kept for it, and without approvals."""
        return Principal(ACTOR, "http", LOCAL_VERBS, credential=self.credential)

    def page_principal(self, task_id: str) -> Principal:
        """The owner as a task's page may use him: for this task, to run it and to read of it."""
        scopes = frozenset({Scope("run", task_id), Scope("read", task_id)})
        return key_principal(ACTOR, "http", scopes, self.credential)


class Sessions:
    """The sessions of a server. Belongs to one event loop.

    ``on_end`` is told the credential of each session that ends before its time.
    """

    def __init__(
        self,
        kept: Kept,
        audit: Audit,
        clock: Clock,
        on_end: Callable[[str], None] = lambda credential: None,
    ) -> None:
        self._passphrase = Passphrase(kept)
        self._audit = audit
        self._clock = clock
        self._on_end = on_end
        self._attempts = LoginAttempts(clock)
        self._waiting = 0
        self._sessions: dict[str, Session] = {}

    @property
    def offered(self) -> bool:
        """Whether a passphrase is set, so that somebody can log in."""
        return self._passphrase.is_set

    async def set_passphrase(self, principal: Principal, given: str) -> int:
        """Set the passphrase and end every session, giving how many.

        Raises INVALID_ARGUMENT, and FORBIDDEN for everybody but the owner on the machine.
        """
        async with self._audit.action(principal, "passphrase_set", ""):
            # Whoever sets it can log in as the owner, which is more than any key may give.
            principal.require_owner()
            await self._passphrase.set(given)
            count = len(self._sessions)
            for session in list(self._sessions.values()):
                self._end(session)
        return count

    # ── Beginning ──

    async def login(self, given: str, peer: str, before: Session | None = None) -> str:
        """Begin a session and give its token; ``before`` is the session it takes the place of.

        Raises UNAUTHENTICATED, the same for every wrong one, and RATE_LIMITED.
        """
        caller = Principal(f"peer:{peer}", "http", verbs=frozenset())
        async with self._audit.action(caller, "login", ""):
            self._require_turn(peer)
            # Counted before it is known to be wrong: tries at the same time do not pass together.
            self._attempts.failed(peer)
            self._waiting += 1
            try:
                right = await self._passphrase.fits(given)
            finally:
                self._waiting -= 1
            if not right:
                raise DicodeError(
                    Code.UNAUTHENTICATED,
                    "the passphrase is not right",
                    hint="set one, or another, in a terminal: dicode passphrase set",
                )
            self._attempts.passed(peer)
        if before is not None:
            self._end(before)
        return self._begin()

    def _require_turn(self, peer: str) -> None:
        wait_s = self._attempts.wait_s(peer)
        if self._waiting >= MOST_WAITING:
            wait_s = max(wait_s, 1.0)
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise DicodeError(
                Code.RATE_LIMITED,
                "too many wrong passphrases were tried",
                hint=f"wait {seconds} s, then try again",
                data={"retry_after_s": seconds},
                retry=Retry.BACKOFF,
            )

    def _begin(self) -> str:
        token, now = secrets.token_urlsafe(32), self._clock.monotonic()
        if len(self._sessions) >= MOST:
            self._end(min(self._sessions.values(), key=lambda session: session.used_s))
        session = Session(secrets.token_hex(8), _digest(token), secrets.token_bytes(32), now, now)
        self._sessions[session.digest] = session
        return token

    # ── Using ──

    def find(self, token: str) -> Session | None:
        """Give the session of a token, which counts as its use; None when there is none."""
        return self._used(self._sessions.get(_digest(token)))

    def named(self, session_id: str) -> Session | None:
        """Give the session of an id, which counts as its use; None when there is none."""
        found = (s for s in self._sessions.values() if s.id == session_id)
        return self._used(next(found, None))

    def ends_ms(self, session: Session) -> int:
        """Give when a session ends at the latest (epoch ms)."""
        left_s = session.begun_s + LASTS_S - self._clock.monotonic()
        return self._clock.now_ms() + round(left_s * 1000)

    def _used(self, session: Session | None) -> Session | None:
        if session is None:
            return None
        now = self._clock.monotonic()
        if now - session.used_s >= IDLE_S or now - session.begun_s >= LASTS_S:
            self._end(session)
            return None
        session = self._sessions[session.digest] = replace(session, used_s=now)
        return session

    # ── Ending ──

    def logout(self, session: Session) -> None:
        """End a session."""
        self._end(session)
        self._audit.note(session.principal, "logout", "", "ok")

    def _end(self, session: Session) -> None:
        if self._sessions.pop(session.digest, None) is not None:
            self._on_end(session.credential)


def form_token(session: Session, purpose: str) -> str:
    """Give what a form for ``purpose`` holds, so that only this session's pages can send it."""
    return hmac.new(session.form_key, purpose.encode(), hashlib.sha256).hexdigest()


def form_fits(session: Session, purpose: str, given: str) -> bool:
    """Tell whether a form's token is that of this session and purpose."""
    return hmac.compare_digest(form_token(session, purpose).encode(), given.encode("utf-8"))


def _digest(token: str) -> str:
    # The token has 256 random bits: a fast digest is as good as a slow one.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()

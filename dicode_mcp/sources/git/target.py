"""One ref that is followed: what is known of it, who listens, and when it is asked next."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256

from dicode_mcp.protocols import GitAuth, GitLimits, GitRef
from dicode_mcp.sources.git.access import want_of
from dicode_mcp.sources.git.failures import REFUSED, Failure
from dicode_mcp.sources.git.jobs import Answer, Want
from dicode_mcp.sources.git.schedule import next_delay
from dicode_mcp.sources.git.state import Known


@dataclass(frozen=True, slots=True)
class MirrorKey:
    """What has a mirror of its own: a URL as somebody may see it.

    Two with different credentials share nothing, so what one may not read it does not get from
    what the other brought.
    """

    url: str
    auth: GitAuth | None
    trusted: bool

    @property
    def id(self) -> str:
        """A name for folders."""
        return sha256(repr(self).encode()).hexdigest()[:20]


def mirror_key(ref: GitRef) -> MirrorKey:
    """Give the mirror of a ref."""
    return MirrorKey(ref.url, ref.auth, ref.trusted)


@dataclass(slots=True)
class Target:
    """A ref, with everything known of it. Belongs to the event loop."""

    ref: GitRef
    known: Known | None = None
    failure: Failure | None = None
    failures: int = 0
    begun: int = 0
    """How often asking has begun; ``asked_at`` is when it last did."""
    asked_at: float | None = None
    refused: tuple[str, Failure] | None = None
    """A tip that was fetched and cannot be used, so that it is not fetched at every poll."""
    pushed: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    poll: asyncio.Task[None] | None = None
    _listeners: dict[asyncio.Event, float] = field(default_factory=dict[asyncio.Event, float])

    @property
    def want(self) -> Want:
        """Which commit it means."""
        return want_of(self.ref)

    @property
    def watched(self) -> bool:
        """Tell whether anyone listens."""
        return bool(self._listeners)

    @property
    def interval(self) -> float:
        """The smallest interval anyone asked for."""
        return min(self._listeners.values(), default=self.ref.poll_interval_s)

    def widen(self, limits: GitLimits) -> None:
        """Take the larger of each limit: two may name the same ref."""
        old = self.ref.limits
        both = GitLimits(
            max(old.max_files, limits.max_files),
            max(old.max_file_size, limits.max_file_size),
            max(old.max_total_size, limits.max_total_size),
            max(old.max_depth, limits.max_depth),
        )
        if both != old:
            self.refused = None
            self.ref = replace(self.ref, limits=both)

    @contextmanager
    def listening(self, changed: asyncio.Event, interval: float) -> Generator[None]:
        """Set ``changed`` whenever something is new, while the block lasts."""
        sooner = not self._listeners or interval < self.interval
        self._listeners[changed] = interval
        if sooner:
            self.wake.set()
        try:
            yield
        finally:
            del self._listeners[changed]

    def tell(self) -> None:
        """Wake who listens."""
        for changed in self._listeners:
            changed.set()

    def due_in(self, now: float, chance: float) -> float | None:
        """Give the seconds until it is to be asked; None: never, since a commit never moves."""
        if self.asked_at is None:
            return 0.0
        if self.want.kind == "commit" and self.known is not None and self.failure is None:
            return None
        delay = next_delay(self.interval, self.failure, self.failures, chance)
        return max(0.0, self.asked_at + delay - now)

    def note(self, answer: Answer) -> bool:
        """Note how asking went; tells whether anything is new."""
        before = (self.known, self.failure)
        self.failure = answer.failure
        self.failures = 0 if answer.failure is None else self.failures + 1
        if answer.failure is None and answer.tip and answer.good:
            self.known, self.refused = Known(answer.tip, answer.good), None
        elif answer.failure and answer.tip and answer.failure.reason in REFUSED:
            self.refused = (answer.tip, answer.failure)
        return before != (self.known, self.failure)

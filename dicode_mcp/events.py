"""What changed, told to whoever listens inside this process. An event only wakes: state is read.

Subscribers get a bounded queue each. One that falls behind loses the oldest events and is told so
by ``Subscription.lost``, so a slow listener never delays or grows the server.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from dicode_mcp.runs.logs import LogLine


@dataclass(frozen=True, slots=True)
class TasksChanged:
    """Tasks were registered, updated, removed or got another condition."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """A source has a new revision or condition."""

    source: str


@dataclass(frozen=True, slots=True)
class DevModeSwitched:
    """A source shows another place than before: dev mode went on, off, or elsewhere."""

    source: str


@dataclass(frozen=True, slots=True)
class SecretChanged:
    """A secret of the server's store was set, changed or deleted."""

    name: str


@dataclass(frozen=True, slots=True)
class RunChanged:
    """A run was made or moved to another status."""

    run_id: str
    task_id: str
    status: str
    duration_ms: int | None = None
    """How long it lasted, once it has begun and ended."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """A run told how far it is. ``total`` is None when unknown."""

    run_id: str
    done: float
    total: float | None
    message: str


@dataclass(frozen=True, slots=True)
class LogAppended:
    """Lines were added to a run's log."""

    run_id: str
    lines: tuple[LogLine, ...]


Event = (
    TasksChanged
    | SourceChanged
    | DevModeSwitched
    | SecretChanged
    | RunChanged
    | RunProgress
    | LogAppended
)


class Subscription:
    """One listener's queue. Iterate it; it never ends by itself."""

    def __init__(self, size: int, kinds: tuple[type[Event], ...] | None = None) -> None:
        self._kinds = kinds
        self._events: deque[Event] = deque(maxlen=size)
        self._wake = asyncio.Event()
        self.lost = 0
        """How many events were dropped because this listener was slow."""

    def put(self, event: Event) -> None:
        """Add an event of a kind listened for, dropping the oldest when full."""
        if self._kinds is not None and not isinstance(event, self._kinds):
            return
        if len(self._events) == self._events.maxlen:
            self.lost += 1
        self._events.append(event)
        self._wake.set()

    async def get(self) -> Event:
        """Wait for the next event."""
        while not self._events:
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Give events for ever."""
        while True:
            yield await self.get()


class EventBus:
    """Hands each published event to every subscription. Belongs to one event loop."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self.published: Counter[type[Event]] = Counter()
        """How many events there were of each kind: tells whether what was read still holds."""

    def publish(self, event: Event) -> None:
        """Give ``event`` to every listener; never blocks."""
        self.published[type(event)] += 1
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextmanager
    def subscribe(
        self, size: int = 1024, kinds: tuple[type[Event], ...] | None = None
    ) -> Generator[Subscription]:
        """Listen while the block lasts, to events of ``kinds`` or to all."""
        subscription = Subscription(size, kinds)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

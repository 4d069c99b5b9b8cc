"""Change notifications to clients of both protocol eras, each client once for each change.

Events of the house are gathered for a moment, turned into what changed for a client, and handed to
the modern era's listen streams and to the open connections of the handshake era. A client is told
only that something changed; it reads again.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace

import mcp_types as t
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)

from dicode_mcp.errors import DicodeError
from dicode_mcp.events import (
    DevModeSwitched,
    Event,
    EventBus,
    LogAppended,
    RunChanged,
    SourceChanged,
    TasksChanged,
)
from dicode_mcp.service.principal import Principal
from dicode_mcp.tools.addresses import VERB, Address, parse_address
from dicode_mcp.tools.caller import Context, connection_of, is_modern, principal_of

log = logging.getLogger(__name__)

GATHER_S = 0.15
RUN_GATHER_S = 0.02
"""For runs and their logs: somebody who follows one reads along."""
SEND_S = 5.0
_EVENTS = 8192


@dataclass(frozen=True, slots=True)
class Change:
    """What changed since clients were last told. ``uris`` are canonical; ``all`` means any.

    ``resources``: the list of resources is another for everybody; ``tasks``: for those who see one
    of these.
    """

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: frozenset[str] = frozenset()
    all: bool = False
    tasks: frozenset[str] = frozenset()

    def __or__(self, other: Change) -> Change:
        """Join two changes."""
        return Change(
            self.tools or other.tools,
            self.prompts or other.prompts,
            self.resources or other.resources,
            self.uris | other.uris,
            self.all or other.all,
            self.tasks | other.tasks,
        )

    def __bool__(self) -> bool:
        """Tell whether anything changed."""
        lists = self.tools or self.prompts or self.resources or self.tasks
        return bool(lists or self.all or self.uris)

    def lists_for(self, principal: Principal) -> bool:
        """Tell whether the resources that a caller may list are others now."""
        return self.resources or any(principal.sees(task_id) for task_id in self.tasks)

    def touches(self, uri: str) -> bool:
        """Tell whether the resource a client named has changed."""
        address = parse_address(uri)
        return address is not None and (self.all or address.changes_with.uri in self.uris)


def change_of(event: Event) -> Change:
    """Say what an event of the house means for clients."""
    match event:
        case TasksChanged(task_ids):
            uris = (Address("task", task_id).uri for task_id in task_ids)
            return Change(uris=frozenset(uris), tasks=frozenset(task_ids))
        case SourceChanged():
            return Change(uris=frozenset({Address("sources").uri}))
        case DevModeSwitched():
            # Told to every client, not only to those that watch the sources.
            return Change(resources=True, uris=frozenset({Address("sources").uri}))
        case RunChanged(run_id, task_id):
            # A task shows its last run.
            uris = (Address("run", run_id).uri, Address("task", task_id).uri)
            return Change(uris=frozenset(uris))
        case LogAppended(run_id):
            return Change(uris=frozenset({Address("logs", run_id).uri}))
        case _:
            return Change()


class _Gathered:
    """Changes that clients are told of together."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pending = Change()
        self._wake = asyncio.Event()

    def note(self, change: Change) -> None:
        if change:
            self._pending |= change
            self._wake.set()

    async def take(self) -> Change:
        """Wait for a change, and for those that come with it."""
        await self._wake.wait()
        await asyncio.sleep(self._seconds)
        self._wake.clear()
        change, self._pending = self._pending, Change()
        return change


@dataclass(frozen=True)
class _ListOfSome(ResourcesListChanged):
    """The list of resources is another for those to whom the change is news."""

    change: Change = Change()


_LISTENER: contextvars.ContextVar[Principal] = contextvars.ContextVar("listener")


class _Bus(InMemorySubscriptionBus):
    """Hands each stream what its caller may know; a stream subscribes within its own request."""

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        principal = _LISTENER.get()

        def deliver(event: ServerEvent) -> None:
            if not isinstance(event, _ListOfSome) or event.change.lists_for(principal):
                listener(event)

        return super().subscribe(deliver)


FindRun = Callable[[Principal, str], Awaitable[object]]
"""Gives a run that the caller may read; raises ``DicodeError``."""


class Hub:
    """Knows the clients that want to be told, and tells them while ``run`` runs.

    Without ``find_run`` only who may read everything is told of runs.
    """

    def __init__(
        self,
        events: EventBus,
        *,
        gather_s: float = GATHER_S,
        run_gather_s: float = RUN_GATHER_S,
        find_run: FindRun | None = None,
    ) -> None:
        self._events = events
        self._find_run = find_run
        self._changes = _Gathered(gather_s)
        self._runs = _Gathered(run_gather_s)
        self._bus = _Bus()
        self._listen = ListenHandler(self._bus)
        self._wanted: Counter[str] = Counter()
        self._clients: dict[Connection, _Client] = {}
        self._senders: asyncio.TaskGroup | None = None

    @property
    def clients(self) -> int:
        """How many connections of the handshake era are open."""
        return len(self._clients)

    async def run(self) -> None:
        """Tell clients of changes until cancelled."""
        with self._events.subscribe(_EVENTS) as subscription:
            async with asyncio.TaskGroup() as senders:
                self._senders = senders
                for client in self._clients.values():
                    client.start(senders)
                senders.create_task(self._tell(self._changes))
                senders.create_task(self._tell(self._runs))
                lost = 0
                async for event in subscription:
                    of_run = isinstance(event, RunChanged | LogAppended)
                    (self._runs if of_run else self._changes).note(change_of(event))
                    if subscription.lost > lost:
                        lost = subscription.lost
                        self._changes.note(Change(resources=True, all=True))

    def tools_changed(self) -> None:
        """Say that the set of tools is another."""
        self._changes.note(Change(tools=True))

    def prompts_changed(self) -> None:
        """Say that the set of prompts is another."""
        self._changes.note(Change(prompts=True))

    def close(self) -> None:
        """End the modern era's listen streams in order; call it when the server stops."""
        self._listen.close()

    async def listen(
        self, ctx: Context, params: t.SubscriptionsListenRequestParams
    ) -> t.SubscriptionsListenResult:
        """Serve one listen stream of the modern era, for the resources the caller may see."""
        wanted = params.notifications.resource_subscriptions or []
        principal = principal_of(ctx)
        uris = [uri for uri in wanted if await self._may_watch(principal, uri)]
        filter_ = params.notifications.model_copy(update={"resource_subscriptions": uris or None})
        _LISTENER.set(principal)
        with self._counted(uris):
            return await self._listen(ctx, params.model_copy(update={"notifications": filter_}))

    async def subscribe(self, ctx: Context, params: t.SubscribeRequestParams) -> t.EmptyResult:
        """Note a resource that a connection of the handshake era wants to hear of."""
        if await self._may_watch(principal_of(ctx), params.uri):
            self._client(ctx).uris.add(params.uri)
        return t.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: t.UnsubscribeRequestParams) -> t.EmptyResult:
        """Forget it again."""
        self._client(ctx).uris.discard(params.uri)
        return t.EmptyResult()

    async def track(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Middleware: keep each connection of the handshake era once it is initialized."""
        if ctx.method == "notifications/initialized" and not is_modern(ctx):
            self._client(ctx)
        return await call_next(ctx)

    def _client(self, ctx: Context) -> _Client:
        connection = connection_of(ctx)
        client = self._clients.get(connection)
        if client is None:
            client = self._clients[connection] = _Client(connection, principal_of(ctx))
            connection.exit_stack.callback(self._forget, connection)
            if self._senders is not None:
                client.start(self._senders)
        return client

    def _forget(self, connection: Connection) -> None:
        client = self._clients.pop(connection, None)
        if client is not None:
            client.stop()

    async def _may_watch(self, principal: Principal, uri: str) -> bool:
        address = parse_address(uri)
        if address is None or not principal.allows(VERB[address.kind]):
            return False
        if address.kind in ("task", "file", "pending"):
            return principal.allows(VERB[address.kind], address.id)
        if address.kind == "sources" or principal.has_all("read"):
            return True
        if self._find_run is None:
            return False
        try:
            await self._find_run(principal, address.id)
        except DicodeError:
            return False
        return True

    @contextmanager
    def _counted(self, uris: Iterable[str]) -> Generator[None]:
        counted = Counter(set(uris))
        self._wanted += counted
        try:
            yield
        finally:
            self._wanted -= counted

    async def _tell(self, gathered: _Gathered) -> None:
        while True:
            change = await gathered.take()
            for client in self._clients.values():
                client.tell(change)
            await self._publish(change)

    async def _publish(self, change: Change) -> None:
        if change.tools:
            await self._bus.publish(ToolsListChanged())
        if change.prompts:
            await self._bus.publish(PromptsListChanged())
        if change.resources:
            await self._bus.publish(ResourcesListChanged())
        elif change.tasks:
            await self._bus.publish(_ListOfSome(change=change))
        for uri in list(self._wanted):
            if change.touches(uri):
                await self._bus.publish(ResourceUpdated(uri))


class _Client:
    """One connection of the handshake era, with its own sender: a slow one delays only itself."""

    def __init__(self, connection: Connection, principal: Principal) -> None:
        self.uris: set[str] = set()
        self._principal = principal
        self._connection = connection
        self._pending = Change()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        # A fresh context: the sender is not part of the request that made it.
        self._task = group.create_task(self._send(), context=contextvars.Context())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def tell(self, change: Change) -> None:
        watched = frozenset(uri for uri in self.uris if change.touches(uri))
        listed = change.lists_for(self._principal)
        self._pending |= replace(
            change, resources=listed, uris=watched, all=False, tasks=frozenset()
        )
        if self._pending:
            self._wake.set()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            change, self._pending = self._pending, Change()
            try:
                async with asyncio.timeout(SEND_S):
                    await self._send_change(change)
            except TimeoutError:
                log.info("a client did not take a change notification in time")
            except Exception:
                log.exception("a change notification could not be sent")

    async def _send_change(self, change: Change) -> None:
        if change.tools:
            await self._connection.send_tool_list_changed()
        if change.prompts:
            await self._connection.send_prompt_list_changed()
        if change.resources:
            await self._connection.send_resource_list_changed()
        for uri in sorted(change.uris):
            await self._connection.send_resource_updated(uri)

"""Changes reach clients of both eras, once each, over every transport that can carry them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import mcp_types as t
import pytest
from mcp import Client
from mcp.client.subscriptions import ResourcesListChanged, ResourceUpdated, ToolsListChanged
from mcp.server import Server
from mcphouse import House, Opening

from dicode_mcp.events import EventBus, LogAppended, RunChanged, SourceChanged, TasksChanged
from dicode_mcp.testing.waiting import until
from dicode_mcp.tools.hub import Change, Hub, change_of

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

HELLO = "dicode://tasks/hello"
QUIET_S = 0.3
"""Longer than the hub gathers: a second notification of one change would be here by then."""


class Heard:
    """What one client was told, as short words in order."""

    def __init__(self) -> None:
        self.words: list[str] = []

    async def on_message(self, message: Any) -> None:
        """Take what a client of the handshake era gets."""
        match message:
            case t.ToolListChangedNotification():
                self.words.append("tools")
            case t.ResourceListChangedNotification():
                self.words.append("resources")
            case t.ResourceUpdatedNotification():
                self.words.append(str(message.params.uri))
            case _:
                pass

    async def follow(self, subscription: Any) -> None:
        """Take what a listen stream gives."""
        async for event in subscription:
            match event:
                case ToolsListChanged():
                    self.words.append("tools")
                case ResourcesListChanged():
                    self.words.append("resources")
                case ResourceUpdated(uri):
                    self.words.append(uri)
                case _:
                    pass


@asynccontextmanager
async def listening(connect: Opening, mode: str, *uris: str) -> AsyncGenerator[Heard]:
    """Open a client that hears of tools, resources and the given addresses."""
    heard = Heard()
    if mode == "legacy":
        async with connect(message_handler=heard.on_message) as client:
            for uri in uris:
                await client.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]
            yield heard
        return
    async with (
        connect() as client,
        client.listen(
            tools_list_changed=True, resources_list_changed=True, resource_subscriptions=list(uris)
        ) as subscription,
    ):
        following = asyncio.create_task(heard.follow(subscription))
        yield heard
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.fixture(params=["socket", "stdio", "http", "sse", "memory-legacy"])
def transport(request: pytest.FixtureRequest) -> str:
    """In one process without streams the modern era has no channel for notifications."""
    return request.param.split("-")[0]


async def test_each_client_hears_of_one_change_once(
    connect: Opening, mode: str, transport: str, house: House, hub: Hub
) -> None:
    if transport == "memory" and mode != "legacy":
        pytest.skip("the SDK's in-process modern client has no listen stream")
    async with (
        listening(connect, mode, HELLO) as first,
        listening(connect, mode, HELLO) as second,
    ):
        await _attached(transport, mode, hub, 2)
        house.write("hello", house.manifest("hello").replace("The hello", "Another"))
        house.bus.publish(TasksChanged(("hello",)))
        house.bus.publish(TasksChanged(("slow",)))
        await until(lambda: len(first.words) >= 2 and len(second.words) >= 2)
        await asyncio.sleep(QUIET_S)
        assert sorted(first.words) == [HELLO, "resources"]
        assert sorted(second.words) == [HELLO, "resources"]
        hub.tools_changed()
        await until(lambda: len(first.words) >= 3 and len(second.words) >= 3)
        await asyncio.sleep(QUIET_S)
        assert first.words.count("tools") == second.words.count("tools") == 1


EVERYONE = [
    (transport, mode)
    for transport in ("socket", "stdio", "http", "sse", "memory")
    for mode in ("legacy", "2026-07-28")
    if (transport, mode) != ("memory", "2026-07-28")
]


@pytest.mark.usefixtures("socket_path", "base_url")
async def test_every_client_over_every_transport_hears_each_change_once(
    open_by: Callable[[str, str], Opening], house: House, hub: Hub
) -> None:
    async with AsyncExitStack() as stack:
        clients = {
            who: await stack.enter_async_context(
                listening(open_by(*who), who[1], HELLO, "dicode://sources")
            )
            for who in EVERYONE
        }
        # Some clients open their stream in the background: tell until each has heard one change.
        while not all(heard.words for heard in clients.values()):
            house.bus.publish(SourceChanged("demo"))
            await asyncio.sleep(QUIET_S)
        for heard in clients.values():
            heard.words.clear()
        changes: list[tuple[Callable[[], None], list[str]]] = [
            (lambda: house.bus.publish(TasksChanged(("hello",))), [HELLO, "resources"]),
            (lambda: house.bus.publish(TasksChanged(("slow",))), ["resources"]),
            (hub.tools_changed, ["tools"]),
            (lambda: house.bus.publish(SourceChanged("demo")), ["dicode://sources"]),
            # A task shows its last run.
            (lambda: house.bus.publish(RunChanged("r1", "hello", "success")), [HELLO]),
        ]
        for change, words in changes:
            change()
            await until(partial(_have_heard, clients.values(), len(words)))
            await asyncio.sleep(QUIET_S)
            told = {who: sorted(heard.words) for who, heard in clients.items()}
            assert told == dict.fromkeys(EVERYONE, words)
            for heard in clients.values():
                heard.words.clear()


async def test_a_client_hears_only_of_the_resources_it_named(
    connect: Opening, mode: str, transport: str, house: House, hub: Hub
) -> None:
    if transport == "memory" and mode != "legacy":
        pytest.skip("the SDK's in-process modern client has no listen stream")
    async with listening(connect, mode, "dicode://runs/r1", "dicode://sources") as heard:
        await _attached(transport, mode, hub, 1)
        house.bus.publish(RunChanged("r1", "hello", "running"))
        house.bus.publish(RunChanged("r2", "hello", "running"))
        house.bus.publish(LogAppended("r1", ()))
        house.bus.publish(SourceChanged("demo"))
        await until(lambda: len(heard.words) >= 2)
        await asyncio.sleep(QUIET_S)
    assert sorted(heard.words) == ["dicode://runs/r1", "dicode://sources"]


async def test_a_client_that_left_is_forgotten(server: Server[Any], hub: Hub) -> None:
    async with Client(server, mode="legacy"):
        await until(lambda: hub.clients == 1)
    assert hub.clients == 0


async def test_events_that_were_lost_are_made_good_by_telling_of_all(
    server: Server[Any], house: House, hub: Hub
) -> None:
    heard = Heard()
    async with Client(server, mode="legacy", message_handler=heard.on_message) as client:
        await client.subscribe_resource(HELLO)  # pyright: ignore[reportDeprecated]
        await until(lambda: hub.clients == 1)
        for number in range(10_000):
            house.bus.publish(RunChanged(f"r{number}", "slow", "running"))
        await until(lambda: sorted(heard.words) == [HELLO, "resources"])


def test_progress_is_no_change_for_clients() -> None:
    assert change_of(TasksChanged(("a/b",))) == Change(
        uris=frozenset({"dicode://tasks/a%2Fb"}), tasks=frozenset({"a/b"})
    )
    assert not Change()


def test_an_unencoded_task_id_names_the_same_resource() -> None:
    change = change_of(TasksChanged(("a/b",)))
    assert change.touches("dicode://tasks/a/b")
    assert change.touches("dicode://tasks/a%2Fb")
    assert not change.touches("dicode://tasks/a")
    assert not change.touches("https://example.com")


async def test_a_hub_that_stops_leaves_the_bus() -> None:
    bus = EventBus()
    running = asyncio.create_task(Hub(bus).run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def _have_heard(clients: Iterable[Heard], count: int) -> bool:
    return all(len(heard.words) >= count for heard in clients)


async def _attached(transport: str, mode: str, hub: Hub, count: int) -> None:
    if mode == "legacy":
        await until(lambda: hub.clients == count)
    if transport == "http" and mode == "legacy":
        # The SDK's client opens its stream for notifications in the background.
        await asyncio.sleep(QUIET_S)

"""``/api/events`` and what follows a run, on a whole server."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from liveserver import Live, Serve

from dicode_mcp.testing.waiting import DEADLINE_S

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
TICKS = (
    "import time\nfor n in range(40):\n    print(time.time(), flush=True)\n    time.sleep(0.02)\n"
)
FLOOD = "for n in range(30_000):\n    print('x' * 200)\n"


class Stream:
    """Events as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines: AsyncIterator[str] = answer.aiter_lines()

    async def next(self, *kinds: str) -> dict[str, Any]:
        """Give the next event (of these kinds): ``{event, id?, data}``."""
        async with asyncio.timeout(DEADLINE_S):
            found: dict[str, Any] = {}
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if line:
                    found[name] = json.loads(value) if name == "data" else value
                    continue
                if "event" in found and (not kinds or found["event"] in kinds):
                    return found
                found = {}
        raise EOFError


@pytest.fixture
async def live(serve: Serve) -> AsyncGenerator[Live]:
    async with serve(http=True, environ=os.environ) as made:
        yield made


@asynccontextmanager
async def streaming(live: Live, query: str = "", **headers: str) -> AsyncGenerator[Stream]:
    async with (
        httpx.AsyncClient(base_url=live.server.url or "", trust_env=False, timeout=60) as client,
        client.stream("GET", f"/api/events{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        yield Stream(answer)


async def test_runs_tasks_and_sources_are_told_as_they_change(live: Live) -> None:
    async with streaming(live) as stream:
        assert stream.answer.headers["content-type"].startswith("text/event-stream")
        await stream.next("open")
        live.write("hello", "result = 1\n")
        await live.sync()
        told = await stream.next("task")
        assert "hello" in told["data"]["tasks"]
        run = await live.run("hello")
        moves = [await stream.next("run") for _ in range(3)]
        assert {move["data"]["run_id"] for move in moves} == {run["run_id"]}
        assert [m["data"]["status"] for m in moves] == ["queued", "running", "success"]
        last: str = moves[-1]["id"]
    again = await live.run("hello")
    async with streaming(live, "?types=run", **{"last-event-id": last}) as stream:
        assert (await stream.next("run", "dropped"))["data"]["run_id"] == again["run_id"]
    async with streaming(live, "?task=none*&types=run") as stream:
        await stream.next("open")
        await live.run("hello")
        live.write("none-1", "result = 1\n")
        await live.sync()
        await live.run("none-1")
        assert (await stream.next("run"))["data"]["task"] == "none-1"


async def test_a_run_is_followed_line_by_line_and_resumed_by_line(live: Live) -> None:
    live.write("ticks", TICKS)
    await live.sync()
    started = await live.call("run_task", id="ticks", wait_seconds=0)
    delays: list[float] = []
    last = ""
    async with streaming(live, f"?run={started['run_id']}") as stream:
        for seq in range(1, 21):
            told = await stream.next("log")
            last = str(told["id"])
            delays.append(time.time() - float(told["data"]["message"]))
            assert told["data"]["seq"] == seq
    delays.sort()
    # The budget is 100 ms; the machine that tests may be busy.
    assert delays[len(delays) // 2] < 0.5, delays
    async with streaming(live, f"?run={started['run_id']}", **{"last-event-id": last}) as stream:
        for seq in range(21, 41):
            assert (await stream.next("log"))["data"]["seq"] == seq
        while (told := await stream.next("run"))["data"]["status"] != "success":
            pass
        with pytest.raises(EOFError):
            await stream.next()


async def test_a_flood_is_followed_without_a_line_lost_or_doubled(live: Live) -> None:
    live.write("flood", FLOOD)
    await live.sync()
    started = await live.call("run_task", id="flood", wait_seconds=0)
    seqs: list[int] = []
    async with streaming(live, f"?run={started['run_id']}") as stream:
        while True:
            told = await stream.next("log", "run")
            if told["event"] == "log":
                seqs.append(told["data"]["seq"])
            elif told["data"]["status"] == "success":
                break
    assert seqs == list(range(1, 30_001))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?run=none", 404),
        ("?types=log", 400),
        ("?types=run,nonsense", 400),
        ("?run=x&types=run", 400),
        ("?after=1", 400),
        ("?level=loud", 400),
        ("?nonsense=1", 400),
    ],
)
async def test_a_wrong_query_is_refused_with_what_to_do(
    live: Live, query: str, status: int
) -> None:
    async with httpx.AsyncClient(base_url=live.server.url or "", trust_env=False) as client:
        answer = await client.get(f"/api/events{query}")
    assert answer.status_code == status
    assert answer.json()["hint"]


async def test_a_reader_that_does_not_read_costs_nothing_and_streams_end_with_the_server(
    live: Live,
) -> None:
    live.write("flood", FLOOD)
    await live.sync()
    started = await live.call("run_task", id="flood", wait_seconds=0)
    where = urlsplit(live.server.url or "")
    _, idle = await asyncio.open_connection(where.hostname, where.port, limit=1024)
    idle.write(
        f"GET /api/events?run={started['run_id']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    async with streaming(live) as stream:
        await stream.next("open")
        # The other goes on while that one stands.
        while (await stream.next("run"))["data"]["status"] != "success":
            pass
        began = time.monotonic()
        live.server.stop()
        with pytest.raises((EOFError, httpx.RemoteProtocolError)):
            await stream.next()
        assert time.monotonic() - began < 3
    idle.close()


async def test_who_watches_a_run_over_mcp_hears_of_its_lines_and_its_end(live: Live) -> None:
    live.write("ticks", TICKS)
    await live.sync()
    started = await live.call("run_task", id="ticks", wait_seconds=0)
    run_id = started["run_id"]
    uris = [f"dicode://runs/{run_id}", f"dicode://runs/{run_id}/logs", "dicode://tasks/ticks"]
    params = {"notifications": {"resourceSubscriptions": uris}, "_meta": META}
    request = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
    reader, writer = await asyncio.open_unix_connection(str(live.data / "dicode.sock"))
    writer.write(json.dumps(request).encode() + b"\n")
    heard: set[str] = set()
    async with asyncio.timeout(DEADLINE_S):
        while heard != set(uris):
            message = json.loads(await reader.readline())
            if message.get("method") == "notifications/resources/updated":
                heard.add(message["params"]["uri"])
    writer.close()

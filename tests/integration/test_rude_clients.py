"""Clients that hang up, flood, stall and send nonsense: an answer or a closed connection.

Never a stuck server: a good client is answered on every door all the while.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from pathlib import Path

import pytest
from rudeclients import (
    DOORS,
    MODERN,
    Raw,
    Running,
    call,
    connected,
    knocking,
    running_server,
    served_meanwhile,
)

pytestmark = [
    pytest.mark.skipif(
        not Path("/proc/net/tcp").exists(),
        reason="keyless HTTP needs the kernel's table of sockets",
    ),
    pytest.mark.parametrize("door", DOORS),
]

SLOW = "import time\n\ndef main():\n    print('on', flush=True)\n    time.sleep(60)\n"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """One server for all of them: what one leaves behind must not trouble the next."""
    with running_server(tmp_path_factory.mktemp("rude")) as server:
        yield server


async def test_half_a_request_and_silence_hold_up_nobody(live: Running, door: str) -> None:
    half = call("get_status")[:40]
    async with served_meanwhile(live):
        stalled = [await connected(live, door) for _ in range(100)]
        for raw in stalled:
            await raw.send(
                raw.framed(half)[:-10] if door == "socket" else b"POST /mcp HTTP/1.1\r\nHo"
            )
    for raw in stalled:
        raw.hang_up()


async def test_half_a_request_and_an_end_close_the_connection(live: Running, door: str) -> None:
    async with served_meanwhile(live), knocking(live, door) as raw:
        whole = raw.framed(call("get_status"))
        await raw.send(whole[: len(whole) // 2])
        raw.writer.write_eof()
        await raw.closed()


async def test_hanging_up_in_the_middle_of_calls_leaves_their_runs_alone(
    live: Running, door: str
) -> None:
    task = f"slow-{door}"
    live.write(task, SLOW)
    await live.sync()
    async with served_meanwhile(live):
        for number in range(20):
            async with knocking(live, door) as raw:
                await raw.send(raw.framed(call("get_status")))
                tool, arguments = ("run_task", {"id": task}) if number == 0 else ("get_runs", {})
                await raw.send(raw.framed(call(tool, 2, **arguments)))
                if number == 0:
                    await _has_run(live, task)
    run = (await live.call("get_runs", task=task))["runs"][0]
    assert run["status"] in ("queued", "running")
    await live.call("cancel_run", run_id=run["run_id"])


async def _has_run(live: Running, task: str) -> None:
    async with asyncio.timeout(30):
        while not (await live.call("get_runs", task=task))["runs"]:
            pass


async def test_a_flood_of_calls_that_are_read_is_answered(live: Running, door: str) -> None:
    count = 500
    async with served_meanwhile(live), knocking(live, door) as raw:
        flood = b"".join(raw.framed(call("get_status", i)) for i in range(1, count + 1))
        sending = asyncio.create_task(raw.send(flood))
        # Over SSE the posts have answers of their own, which must be taken too.
        taking = asyncio.create_task(raw.closed()) if raw.stream else None
        async with asyncio.timeout(120):
            for _ in range(count):
                await raw.ear.reader.readuntil(b'"structuredContent"')
            await sending
        if taking:
            taking.cancel()
            await asyncio.wait({taking})


async def test_a_flood_of_calls_that_nobody_reads_holds_up_only_itself(
    live: Running, door: str
) -> None:
    async with served_meanwhile(live), knocking(live, door) as raw:
        flood = b"".join(raw.framed(call("list_tasks", i)) for i in range(1, 20_001))
        sending = asyncio.create_task(raw.send(flood))
        # The server stops taking at some point: what it was sent does not all fit in its hands.
        await asyncio.wait({sending}, timeout=1.0)
        sending.cancel()
        await asyncio.wait({sending})


async def test_many_idle_connections_hold_up_nobody(live: Running, door: str) -> None:
    async with served_meanwhile(live), knocking(live, door) as raw:
        # Fewer than the socket and the streams take, so that there is room for the good client.
        idle = [await connected(live, door) for _ in range(200)]
        await raw.send(raw.framed(call("get_status")))
        assert b'"structuredContent"' in await raw.ear.heard(b'"structuredContent"')
    for other in idle:
        other.hang_up()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"hello",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"jsonrpc": "2.0"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": 5}',
        b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}',
        b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 7}}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "no/such"}',
        b'{"jsonrpc": "2.0", "id": 99, "result": {}}',
        b'{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": []}}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 3}}',
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b'{"jsonrpc": "2.0", "id": 1e400, "method": "ping"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "method": "tools/list"}',
    ],
    ids=lambda message: message[:48].decode(errors="replace") + f"-{len(message)}",
)
async def test_nonsense_gets_an_answer_or_an_end(live: Running, door: str, message: bytes) -> None:
    async with knocking(live, door) as raw:
        await raw.send(raw.framed(message))
        # What a message without id asks gets no answer; a good call after it does, or an end.
        await raw.send(raw.framed(call("get_status", 2)))
        raw.writer.write_eof()
        await raw.answer()
    assert "version" in await live.call("get_status")


async def test_an_unknown_version_is_answered_with_the_known_ones(live: Running, door: str) -> None:
    async with served_meanwhile(live), knocking(live, door) as raw:
        request = call("get_status", version="2031-01-01")
        await raw.send(raw.framed(request, version="2031-01-01"))
        known = MODERN.encode()
        answer = await raw.ear.heard(b"-32022", known)
        assert b"-32022" in answer
        assert known in answer


async def test_an_old_unknown_version_is_answered_with_an_offer(live: Running, door: str) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "1999-01-01",
            "capabilities": {},
            "clientInfo": {"name": "rude", "version": "1"},
        },
    }
    async with knocking(live, door) as raw:
        await raw.send(raw.framed(json.dumps(hello).encode(), version="2025-11-25"))
        assert b"2025-11-25" in await raw.ear.heard(b"2025-11-25")


async def test_ten_megabytes_get_an_answer(live: Running, door: str) -> None:
    async with served_meanwhile(live), knocking(live, door) as raw:
        answer = await _answered(raw, raw.framed(call("list_tasks", query="x" * 10 * MIB)))
    # The socket takes lines of 16 MiB, so there the argument is what is too long.
    expected = b"at most 512 characters" if door == "socket" else b"413"
    assert expected in answer
    assert b"xxx" not in answer


async def test_ten_megabytes_that_never_end_are_not_waited_for(live: Running, door: str) -> None:
    async with served_meanwhile(live), knocking(live, door) as raw:
        unended = raw.framed(b"y" * 10 * MIB)[: 9 * MIB]
        if door == "socket":
            await raw.send(unended)
        else:
            assert b"413" in await _answered(raw, unended)


async def _answered(raw: Raw, data: bytes) -> bytes:
    """Send and listen at once: a refusal comes before all is sent."""
    sending = asyncio.create_task(raw.send(data))
    try:
        return await raw.answer()
    finally:
        sending.cancel()
        await asyncio.wait({sending})

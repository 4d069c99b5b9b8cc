"""Half-sent requests end, good ones do not notice, a stop ends streams; deadlines scaled down."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic

import httpx
import pytest
from mcp.server import Server
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from dicode_mcp.executor.lineage import Origin
from dicode_mcp.testing.callers import held_by, owned_by
from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.protocol import Deadlines
from dicode_mcp.web.server import HttpServer, Listening

QUICK = Deadlines(head_s=0.4, body_s=0.4, body_rate=1000.0, body_total_s=1.5, linger_s=0.3)


async def _body(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def _slow(request: Request) -> PlainTextResponse:
    await asyncio.sleep(2 * QUICK.head_s)
    return PlainTextResponse("worth the wait")


async def _early(request: Request) -> PlainTextResponse:
    return PlainTextResponse("enough")


async def _endless(request: Request) -> StreamingResponse:
    async def parts() -> AsyncGenerator[bytes]:
        while True:
            yield b"tick\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(parts())


async def _flood(request: Request) -> StreamingResponse:
    async def parts() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(parts())


ROUTES = [
    Route("/body", _body, methods=["POST"]),
    Route("/slow", _slow, methods=["POST"]),
    Route("/early", _early, methods=["POST"]),
    Route("/endless", _endless),
    Route("/flood", _flood),
]


@asynccontextmanager
async def serving(deadlines: Deadlines = QUICK) -> AsyncGenerator[Listening]:
    """Serve the test routes."""
    me = os.geteuid()
    settings = WebSettings(own_uid=me, find_owner=owned_by(me), judge=held_by(Origin.CLIENT))
    app = create_app(Server("test"), settings, readiness=lambda: Readiness.READY, routes=ROUTES)
    async with HttpServer(app, port=0, deadlines=deadlines).listening() as where:
        yield where


@asynccontextmanager
async def raw(
    where: Listening, text: bytes
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect and send bytes."""
    reader, writer = await asyncio.open_connection(where.host, where.port)
    writer.write(text)
    try:
        yield reader, writer
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Read until the server closes."""
    async with asyncio.timeout(DEADLINE_S):
        return await reader.read()


HEAD = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", False),
        (b"POST /bo", True),
        (b"POST /body HTTP/1.1\r\nHost: localhost\r\n", True),
        (HEAD, True),
        (HEAD + b"x" * 20, True),
        (
            b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            True,
        ),
    ],
)
async def test_a_half_sent_request_is_ended_with_408(sent: bytes, answered: bool) -> None:
    async with serving() as where, raw(where, sent) as (reader, _):
        answer = await rest(reader)
    assert answer.startswith(b"HTTP/1.1 408") is answered
    if answered:
        assert b"application/problem+json" in answer
        assert b"connection: close" in answer.lower()


async def test_a_body_in_drops_is_ended_and_a_steady_one_is_not() -> None:
    async with serving() as where:
        async with raw(where, HEAD) as (reader, writer):
            ended = asyncio.create_task(rest(reader))
            sent = 0
            while not ended.done() and sent < 100:
                writer.write(b"x")
                sent += 1
                await asyncio.sleep(0.05)
            assert (await ended).startswith(b"HTTP/1.1 408")
            assert sent < 60
        async with raw(where, HEAD) as (reader, writer):
            for _ in range(10):
                writer.write(b"x" * 200)
                await asyncio.sleep(0.08)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_kept_connection_may_rest_but_not_stop_within_its_next_request() -> None:
    request = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nok"
    async with serving() as where, raw(where, request) as (reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(1) == b"2"
        await asyncio.sleep(1.5 * QUICK.head_s)
        writer.write(request)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(1) == b"2"
        writer.write(b"POST /body HT")
        assert (await rest(reader)).startswith(b"HTTP/1.1 408")


async def test_a_handler_may_take_its_time() -> None:
    async with serving() as where, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(where.url + "/slow", content=b"x" * 100)
    assert answer.text == "worth the wait"


async def test_the_rest_of_a_body_that_was_answered_early_is_not_taken_for_ever() -> None:
    head = b"POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    async with serving() as where, raw(where, head) as (reader, writer):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        ended = asyncio.create_task(rest(reader))
        began = monotonic()
        while not ended.done() and monotonic() - began < DEADLINE_S:
            writer.write(b"x")
            await asyncio.sleep(0.02)
        assert ended.done()


async def test_a_client_that_takes_no_answer_is_let_go() -> None:
    loop = asyncio.get_running_loop()
    async with serving(Deadlines(write_stall_s=0.3)) as where:
        with socket.socket() as link:
            link.setblocking(False)
            await loop.sock_connect(link, (where.host, where.port))
            await loop.sock_sendall(link, b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.sleep(1.0)
            async with asyncio.timeout(DEADLINE_S):
                assert not await _goes_on(link)


async def _goes_on(link: socket.socket) -> bool:
    """Read what comes; tell whether it is more than buffers can hold, so the server still sends."""
    taken = 0
    while taken < 64 * 2**20:
        try:
            part = await asyncio.get_running_loop().sock_recv(link, 2**20)
        except ConnectionResetError:
            return False
        if not part:
            return False
        taken += len(part)
    return True


async def test_many_half_sent_requests_end_in_time_while_a_good_client_stays_quick() -> None:
    async with serving(Deadlines(head_s=1.0, body_s=1.0)) as where:
        links = [await asyncio.open_connection(where.host, where.port) for _ in range(300)]
        for number, (_, writer) in enumerate(links):
            writer.write(HEAD if number % 2 else b"GET /he")
        began = monotonic()
        waits: list[float] = []
        async with httpx.AsyncClient(trust_env=False) as client:
            ends = asyncio.gather(*(rest(reader) for reader, _ in links))
            while not ends.done():
                start = monotonic()
                assert (await client.get(where.url + "/healthz")).status_code == 200
                waits.append(monotonic() - start)
                await asyncio.sleep(0.02)
            await ends
        assert monotonic() - began < 10
        assert sorted(waits)[len(waits) // 2] < 0.5
        for _, writer in links:
            writer.close()


async def test_a_stop_ends_open_streams_in_time() -> None:
    async with serving() as where:
        reader, writer = await asyncio.open_connection(where.host, where.port)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"tick")
        began = monotonic()
    assert monotonic() - began < 4.5
    await rest(reader)
    writer.close()

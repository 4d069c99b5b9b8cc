"""The HTTP surface over real sockets: health, guards, body limits, problem documents."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.server import Server
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor.lineage import Lineage, Origin
from dicode_mcp.testing.callers import held_by, owned_by
from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.problems import MEDIA_TYPE, STATUS
from dicode_mcp.web.server import HttpServer, Listening, require_keys
from dicode_mcp.web.sock_diag import SocketOwner

ME = os.geteuid()
has_table = pytest.mark.skipif(
    not Path("/proc/net/tcp").exists(), reason="this system does not tell a peer's user"
)


async def _echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"bytes": len(body), "actor": request.state.principal.actor})


async def _refuse(request: Request) -> PlainTextResponse:
    raise DicodeError(Code.TASK_NOT_FOUND, "no such task", hint="call list_tasks")


async def _crash(request: Request) -> PlainTextResponse:
    raise RuntimeError("s3cr3t")


ROUTES = [
    Route("/echo", _echo, methods=["POST"]),
    Route("/refuse", _refuse),
    Route("/crash", _crash),
]


@asynccontextmanager
async def serving(
    readiness: Callable[[], Readiness] = lambda: Readiness.READY, **settings: Any
) -> AsyncGenerator[tuple[Listening, httpx.AsyncClient]]:
    """Serve an app with test routes; give where, and a client."""
    options: dict[str, Any] = {
        "own_uid": ME,
        "find_owner": owned_by(ME),
        "judge": held_by(Origin.CLIENT),
        **settings,
    }
    app = create_app(Server("test"), WebSettings(**options), readiness=readiness, routes=ROUTES)
    async with (
        HttpServer(app, port=0).listening() as where,
        httpx.AsyncClient(base_url=where.url, timeout=DEADLINE_S, trust_env=False) as client,
    ):
        yield where, client


def problem(response: httpx.Response, status: int, code: Code) -> dict[str, Any]:
    """Check that an answer is a problem document, and give it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body = response.json()
    assert (body["status"], body["code"]) == (status, code.value)
    assert body["type"] == f"urn:dicode:error:{code.value}"
    assert body["title"]
    assert body["detail"]
    return body


async def test_health_is_told_to_anybody_and_readiness_as_it_is() -> None:
    state = Readiness.STARTING
    async with serving(lambda: state, find_owner=owned_by(None)) as (_, client):
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        problem(await client.get("/readyz"), 503, Code.UNREACHABLE)
        state = Readiness.READY
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        state = Readiness.DRAINING
        problem(await client.get("/readyz"), 503, Code.SHUTTING_DOWN)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/mcp", "/echo", "/nothing"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
    ],
)
async def test_a_foreign_host_or_origin_is_refused_on_every_route(
    path: str, headers: dict[str, str]
) -> None:
    async with serving() as (_, client):
        for method in ("GET", "POST", "OPTIONS"):
            answer = await client.request(method, path, headers=headers)
            problem(answer, 403, Code.FORBIDDEN)
            assert "access-control-allow-origin" not in answer.headers


async def test_our_own_page_may_call() -> None:
    async with serving() as (where, client):
        answer = await client.post("/echo", headers={"origin": f"http://localhost:{where.port}"})
    assert answer.json() == {"bytes": 0, "actor": "local"}


@has_table
async def test_a_call_of_the_servers_own_user_passes_by_the_kernels_word() -> None:
    app = create_app(
        Server("test"), WebSettings(own_uid=ME), readiness=lambda: Readiness.READY, routes=ROUTES
    )
    async with (
        HttpServer(app, port=0).listening() as where,
        httpx.AsyncClient(base_url=where.url, trust_env=False) as client,
    ):
        assert (await client.post("/echo", content=b"abc")).json()["bytes"] == 3


_STRANGER = """
import encodings.idna, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
link.sendall(b"POST /echo HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\n\\r\\n")
print(link.makefile().readline())
"""


@has_table
@pytest.mark.skipif(ME != 0, reason="only root can start a process of another user")
async def test_another_users_call_is_refused_by_the_kernels_word() -> None:
    app = create_app(
        Server("test"), WebSettings(own_uid=ME), readiness=lambda: Readiness.READY, routes=ROUTES
    )
    async with HttpServer(app, port=0).listening() as where:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-I", "-c", _STRANGER, str(where.port)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=True,
        )
    assert done.stdout.startswith("HTTP/1.1 401")


async def test_the_peers_user_is_asked_once_for_each_connection() -> None:
    asked: list[Any] = []

    def find(peer: Any, own: Any) -> SocketOwner:
        asked.append(peer)
        return SocketOwner(ME, 1, 7)

    async def judge(inode: int) -> Lineage:
        asked.append(inode)
        return Lineage(Origin.CLIENT)

    async with serving(find_owner=find, judge=judge) as (_, client):
        for _ in range(3):
            assert (await client.post("/echo")).status_code == 200
    assert asked[1:] == [7]


@pytest.mark.parametrize("origin", [Origin.TASK, Origin.UNKNOWN])
async def test_a_task_or_who_might_be_one_is_refused_and_let_go(origin: Origin) -> None:
    async with serving(judge=held_by(origin)) as (_, client):
        assert (await client.get("/healthz")).status_code == 200
        for path in ("/echo", "/mcp", "/nothing"):
            answer = await client.post(path)
            body = problem(answer, 401, Code.UNAUTHENTICATED)
            assert "task" in body["detail"]
            assert "SDK" in body["hint"]
            assert "permissions.dicode" in body["hint"]
            assert answer.headers["connection"] == "close"
        page = await client.get("/", headers={"accept": "text/html"})
        assert (page.status_code, page.headers["connection"]) == (401, "close")


async def test_a_connection_that_carries_a_tasks_bytes_is_a_tasks_whoever_holds_it() -> None:
    def carries(inode: int) -> bool:
        return inode > 0

    async with serving(is_task=carries) as (_, client):
        body = problem(await client.post("/echo"), 401, Code.UNAUTHENTICATED)
        assert "a task has no identity here" in body["detail"]


async def test_another_users_socket_is_not_looked_for() -> None:
    async def judge(inode: int) -> Lineage:
        pytest.fail("looked for a stranger's process")

    async with serving(find_owner=owned_by(ME + 1), judge=judge) as (_, client):
        problem(await client.post("/echo"), 401, Code.UNAUTHENTICATED)


@pytest.mark.parametrize("owner", [None, ME + 1])
async def test_a_stranger_or_an_unknown_peer_is_refused(owner: int | None) -> None:
    async with serving(find_owner=owned_by(owner)) as (_, client):
        for path in ("/echo", "/mcp", "/nothing"):
            answer = await client.post(path)
            body = problem(answer, 401, Code.UNAUTHENTICATED)
            assert "dicode mcp" in body["hint"]
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_any_key_is_refused_and_not_shown() -> None:
    async with serving() as (_, client):
        for path in ("/echo", "/mcp", "/healthz"):
            answer = await client.post(path, headers={"authorization": "Bearer dck_s3cr3t"})
            problem(answer, 401, Code.UNAUTHENTICATED)
            assert "s3cr3t" not in answer.text


async def test_errors_are_problem_documents() -> None:
    async with serving() as (_, client):
        body = problem(await client.get("/refuse"), 404, Code.TASK_NOT_FOUND)
        assert body["hint"] == "call list_tasks"
        problem(await client.get("/nothing"), 404, Code.NOT_FOUND)
        answer = await client.get("/echo")
        problem(answer, 405, Code.NOT_SUPPORTED)
        assert "POST" in answer.headers["allow"]
        answer = await client.get("/crash")
        problem(answer, 500, Code.INTERNAL)
        assert "s3cr3t" not in answer.text


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(Code)


async def test_a_body_over_the_limit_is_413_declared_or_streamed() -> None:
    async def stream(count: int) -> AsyncGenerator[bytes]:
        for _ in range(count):
            yield b"x" * 1024

    async with serving(max_body=10 * 1024) as (_, client):
        assert (await client.post("/echo", content=b"x" * 10 * 1024)).status_code == 200
        body = problem(await client.post("/echo", content=b"x" * 10_241), 413, Code.TOO_LARGE)
        assert body["data"] == {"limit": 10 * 1024}
        assert (await client.post("/echo", content=stream(10))).status_code == 200
        problem(await client.post("/echo", content=stream(11)), 413, Code.TOO_LARGE)
        assert (await client.post("/echo", content=b"ok")).status_code == 200


async def test_an_endless_body_is_413_and_the_connection_ends() -> None:
    def send(url: str) -> httpx.Response:
        # A client that writes and reads by turns: it sees the answer once its writing fails.
        parts = (b"x" * 65536 for _ in itertools.count())
        return httpx.post(url, content=parts, timeout=DEADLINE_S, trust_env=False)

    async with serving(max_body=10 * 1024) as (where, client):
        problem(await asyncio.to_thread(send, where.url + "/echo"), 413, Code.TOO_LARGE)
        assert (await client.post("/echo", content=b"ok")).status_code == 200


async def test_mcp_has_its_own_limit() -> None:
    async with serving(max_body=10) as (_, client):
        answer = await client.post("/mcp", content=b"{}", headers={"content-type": "text/plain"})
        assert answer.status_code == 400
        problem(await client.post("/mcp", content=b"x" * (4 * 2**20 + 1)), 413, Code.TOO_LARGE)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_an_address_that_others_reach_is_refused_without_keys(host: str) -> None:
    with pytest.raises(DicodeError) as raised:
        require_keys(host, usable=False, named=True)
    assert raised.value.code is Code.INVALID_CONFIG
    assert "127.0.0.1" in (raised.value.hint or "")


def test_with_a_key_it_still_wants_the_names_by_which_it_is_called() -> None:
    with pytest.raises(DicodeError) as raised:
        require_keys("0.0.0.0", usable=True, named=False)
    assert "server.allowed_hosts" in (raised.value.hint or "")
    require_keys("0.0.0.0", usable=True, named=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_neither(host: str) -> None:
    require_keys(host, usable=False, named=False)


async def test_a_taken_port_is_said_so() -> None:
    async with serving() as (where, _):
        app = create_app(Server("b"), WebSettings(own_uid=ME), readiness=lambda: Readiness.READY)
        with pytest.raises(DicodeError) as raised:
            async with HttpServer(app, port=where.port).listening():
                pytest.fail("listened twice")
    assert raised.value.code is Code.PORT_IN_USE
    assert str(where.port) in raised.value.message


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with serving():
            raise ValueError("mine")

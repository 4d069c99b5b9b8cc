"""Proxies and tunnels: nobody who comes through one is the server's own user."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from mcp.server import Server
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dicode_mcp.executor.lineage import Origin
from dicode_mcp.testing.callers import held_by, owned_by
from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.guard import caller_of
from dicode_mcp.web.peers import Endpoint
from dicode_mcp.web.proxies import CLIENT, Trusted
from dicode_mcp.web.server import HttpServer, Listening
from dicode_mcp.web.sock_diag import SocketOwner

ME = os.geteuid()
PUBLIC = "hooks.example.org"


async def _who(request: Request) -> JSONResponse:
    caller = await caller_of(request)
    return JSONResponse(
        {
            "actor": caller.actor if caller else None,
            "client": request.scope["state"][CLIENT],
            "scheme": request.url.scheme,
        }
    )


@asynccontextmanager
async def serving(**settings: Any) -> AsyncGenerator[tuple[Listening, httpx.AsyncClient]]:
    options: dict[str, Any] = {
        "own_uid": ME,
        "find_owner": owned_by(ME),
        "judge": held_by(Origin.CLIENT),
        "allowed_hosts": (PUBLIC,),
        **settings,
    }
    routes = [Route("/who", _who), Route("/hooks/who", _who)]
    app = create_app(
        Server("test"), WebSettings(**options), readiness=lambda: Readiness.READY, routes=routes
    )
    async with (
        HttpServer(app, port=0).listening() as where,
        httpx.AsyncClient(base_url=where.url, timeout=DEADLINE_S, trust_env=False) as client,
    ):
        yield where, client


SIGNS = [
    {"host": PUBLIC},
    {"host": f"{PUBLIC}:443"},
    {"x-forwarded-for": "127.0.0.1"},
    {"x-forwarded-for": ""},
    {"x-forwarded-host": "localhost"},
    {"x-forwarded-proto": "http"},
    {"x-forwarded-port": "80"},
    {"forwarded": "for=127.0.0.1"},
    {"x-real-ip": "127.0.0.1"},
    {"via": "1.1 proxy"},
    {"cf-connecting-ip": "127.0.0.1"},
    {"cf-ray": "1"},
    {"true-client-ip": "127.0.0.1"},
    {"tailscale-user-login": "me"},
]


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: next(iter(sign)))
@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
async def test_what_shows_a_proxy_is_nobodys_own(
    sign: dict[str, str], trusted: tuple[str, ...]
) -> None:
    async with serving(trusted_proxies=trusted) as (_, client):
        for path in ("/who", "/mcp", "/", "/api/sources"):
            answer = await client.get(path, headers=sign)
            assert answer.status_code == 401
            assert answer.json()["code"] == "unauthenticated"
            assert "key" in answer.json()["detail"]
        # Not by the connection either, once its owner has called on it.
        assert (await client.get("/who")).json()["actor"] == "local"
        assert (await client.get("/who", headers=sign)).status_code == 401
        assert (await client.get("/hooks/who", headers=sign)).json()["actor"] is None


async def test_a_request_in_the_version_that_proxies_speak_is_nobodys_own() -> None:
    async with serving() as (where, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
        writer.write(b"GET /who HTTP/1.0\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.readline()).split()[1] == b"401"
        writer.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:8080"])
async def test_a_direct_call_by_a_loopback_name_is_its_users(host: str) -> None:
    async with serving() as (_, client):
        assert (await client.get("/who", headers={"host": host})).json()["actor"] == "local"


async def test_nobody_chooses_whose_socket_is_looked_for() -> None:
    asked: list[Endpoint] = []

    def find(peer: Endpoint, own: Endpoint) -> SocketOwner | None:
        asked.append(peer)
        return SocketOwner(ME + 1, 1, 7)

    async with serving(find_owner=find) as (_, client):
        headers = {"x-forwarded-for": "127.0.0.1:1"}
        assert (await client.get("/who", headers=headers)).status_code == 401
        assert (await client.get("/who")).status_code == 401
    assert all(port != 1 for _, port in asked)


async def test_the_owner_is_known_below_open_paths_too_and_a_task_is_not() -> None:
    async with serving() as (_, client):
        assert (await client.get("/hooks/who")).json()["actor"] == "local"
    async with serving(judge=held_by(Origin.TASK)) as (_, client):
        assert (await client.get("/hooks/who")).json()["actor"] is None
    async with serving(find_owner=owned_by(ME + 1)) as (_, client):
        assert (await client.get("/hooks/who")).json()["actor"] is None


async def test_only_a_trusted_proxy_says_who_calls_and_how() -> None:
    headers = {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https"}
    async with serving() as (_, client):
        seen = (await client.get("/hooks/who", headers=headers)).json()
        assert (seen["client"], seen["scheme"]) == ("127.0.0.1", "http")
    async with serving(trusted_proxies=("127.0.0.0/8",)) as (_, client):
        seen = (await client.get("/hooks/who", headers=headers)).json()
        assert (seen["client"], seen["scheme"]) == ("192.0.2.1", "https")


async def test_the_public_address_has_its_scheme_whoever_passes_it_on() -> None:
    async with serving(allowed_hosts=(), public_url=f"https://{PUBLIC}") as (_, client):
        seen = (await client.get("/hooks/who", headers={"host": PUBLIC})).json()
        assert seen["scheme"] == "https"
        assert (await client.get("/hooks/who")).json()["scheme"] == "http"


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9", "192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["192.0.2.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1, "], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("192.0.2.8", ["192.0.2.1"], "192.0.2.8"),
    ],
)
def test_the_caller_is_the_last_that_no_trusted_proxy_is(
    peer: str, chain: list[str], client: str
) -> None:
    assert Trusted(["10.0.0.0/8"]).client(peer, chain) == client

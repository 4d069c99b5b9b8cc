"""Keys over HTTP: a right one is its principal anywhere, a wrong one is nobody's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import mcp_types as t
import pytest
from mcp.server import Server
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor.lineage import Origin
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.keys import Keys
from dicode_mcp.service.principal import local_principal
from dicode_mcp.testing.callers import held_by, owned_by
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import DEADLINE_S, until
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.bearers import MAX_PEERS, WRONG_AT_ONCE, Bearers, WrongProofs, group_of
from dicode_mcp.web.guard import caller_of
from dicode_mcp.web.server import HttpServer

ME = os.geteuid()
OWNER = local_principal("cli")
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
LIST: dict[str, Any] = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}


@dataclass
class Room:
    """A server over a real socket, its keys, and what its routes have seen."""

    client: httpx.AsyncClient
    keys: Keys
    audit: Audit
    store: MemoryStore
    seen: list[dict[str, Any]]
    waiting: asyncio.Event

    async def key(self, name: str, *scopes: str, expires_s: float | None = None) -> dict[str, str]:
        """Make a key; gives the headers of a caller who has it."""
        made = await self.keys.create(OWNER, name, scopes or ["read"], expires_s=expires_s)
        return {"authorization": f"Bearer {made['key']}"}


@asynccontextmanager
async def room(**settings: Any) -> AsyncGenerator[Room]:
    clock, store = SystemClock(), MemoryStore()
    audit = Audit(store, clock)
    keys = Keys(store, [], audit, clock)
    seen: list[dict[str, Any]] = []
    waiting = asyncio.Event()

    async def who(request: Request) -> JSONResponse:
        caller = await caller_of(request)
        seen.append({"headers": dict(request.headers), "scope": repr(request.scope)})
        return JSONResponse(
            {"actor": caller and caller.actor, "surface": caller and caller.surface}
        )

    async def stream(request: Request) -> StreamingResponse:
        async def parts() -> AsyncGenerator[bytes]:
            yield b"begun\n"
            waiting.set()
            await asyncio.Event().wait()

        return StreamingResponse(parts())

    async def slow(request: Request) -> JSONResponse:
        waiting.set()
        await asyncio.Event().wait()
        return JSONResponse({})

    async def tools(ctx: Any, params: Any) -> t.ListToolsResult:
        return t.ListToolsResult(tools=[])

    mcp: Server[object] = Server("test", on_list_tools=tools)
    options: dict[str, Any] = {
        "own_uid": ME,
        "find_owner": owned_by(None),
        "judge": held_by(Origin.CLIENT),
        "bearers": Bearers(keys, audit, clock),
        **settings,
    }
    app = create_app(
        mcp,
        WebSettings(**options),
        readiness=lambda: Readiness.READY,
        routes=[
            Route("/who", who, methods=["GET", "POST"]),
            Route("/hooks/who", who),
            Route("/api/stream", stream),
            Route("/api/slow", slow),
        ],
    )
    async with (
        HttpServer(app, port=0).listening() as where,
        httpx.AsyncClient(base_url=where.url, timeout=DEADLINE_S, trust_env=False) as client,
    ):
        yield Room(client, keys, audit, store, seen, waiting)


MCP_HEADERS = {"accept": "application/json, text/event-stream"}


async def test_a_right_key_gives_its_principal_to_whoever_has_it() -> None:
    async with room(allowed_hosts=("dicode.example",)) as house:
        key = await house.key("ci", "run:infra/*")
        for more in ({}, {"host": "dicode.example"}, {"x-forwarded-for": "203.0.113.9"}):
            answer = await house.client.get("/who", headers={**key, **more})
            assert answer.json()["actor"].startswith("key:ci#"), answer.text
        assert (await house.client.get("/hooks/who", headers=key)).json()["surface"] == "http"
        assert (await house.client.get("/healthz", headers=key)).status_code == 200


async def test_a_key_is_kept_from_all_that_is_behind_the_gate() -> None:
    async with room() as house:
        key = await house.key("ci")
        await house.client.get("/who", headers=key)
        text = key["authorization"].removeprefix("Bearer ")
        assert "authorization" not in house.seen[0]["headers"]
        assert text not in house.seen[0]["scope"]
        assert text not in repr(await house.store.keys())


@pytest.mark.parametrize("path", ["/who", "/hooks/who", "/mcp", "/sse", "/healthz", "/nothing"])
@pytest.mark.parametrize(
    "given",
    [
        ["Bearer dck_abcdefghij_" + "A" * 43],
        ["Bearer"],
        ["Basic dXNlcjpwYXNz"],
        ["dck_abcdefghij_" + "A" * 43],
        ["Bearer \u00e4"],
        [""],
        ["Bearer x", "Bearer y"],
    ],
)
async def test_a_wrong_key_is_401_everywhere_also_for_the_owner(
    path: str, given: list[str]
) -> None:
    async with room(find_owner=owned_by(ME)) as house:
        assert (await house.client.get("/who")).json()["actor"] == "local"
        headers = [(b"authorization", text.encode("latin-1")) for text in given]
        answer = await house.client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="dicode"')
        assert all(text.removeprefix("Bearer ") not in answer.text for text in given if "A" in text)
        assert len(house.seen) == 1


async def test_a_revoked_key_is_401() -> None:
    async with room() as house:
        key = await house.key("ci")
        await house.keys.revoke(OWNER, "ci")
        assert (await house.client.get("/who", headers=key)).status_code == 401


async def test_with_server_auth_the_owner_needs_a_key_too() -> None:
    async with room(find_owner=owned_by(ME), proof_only=True) as house:
        for path in ("/who", "/mcp", "/sse"):
            answer = await house.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert (await house.client.get("/hooks/who")).json()["actor"] is None
        assert (await house.client.get("/healthz")).status_code == 200
        key = await house.key("ci")
        assert (await house.client.get("/who", headers=key)).status_code == 200


async def test_a_key_does_not_open_a_foreign_host_or_origin() -> None:
    async with room() as house:
        key = await house.key("ci")
        for bad in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
            assert (await house.client.get("/who", headers={**key, **bad})).status_code == 403
        assert house.seen == []


@pytest.mark.parametrize(
    ("owner", "origin", "status"),
    [
        (ME, Origin.TASK, 401),
        (ME + 1, Origin.TASK, 401),
        (ME, Origin.UNKNOWN, 401),
        (ME + 1, Origin.UNKNOWN, 200),
        (ME + 1, Origin.CLIENT, 200),
        (ME, Origin.CLIENT, 200),
    ],
)
async def test_a_task_is_nobody_also_with_a_right_key(
    owner: int, origin: Origin, status: int
) -> None:
    async with room(find_owner=owned_by(owner), judge=held_by(origin)) as house:
        key = await house.key("ci")
        assert (await house.client.get("/who", headers=key)).status_code == status


# ── Streams and sessions ──


async def test_what_is_open_under_a_key_ends_with_it() -> None:
    async with room() as house:
        key = await house.key("ci")
        other = await house.key("other")
        async with (
            asyncio.timeout(DEADLINE_S),
            house.client.stream("GET", "/api/stream", headers=key) as answer,
        ):
            lines = answer.aiter_lines()
            assert await anext(lines) == "begun"
            [credential] = {f"key:{k.id}" for k in await house.store.keys() if k.name == "ci"}
            assert house.keys.leases.held(credential) == 1
            await house.keys.revoke(OWNER, "ci")
            assert [line async for line in lines] == []
        assert house.keys.leases.held(credential) == 0
        assert (await house.client.get("/who", headers=other)).status_code == 200


async def test_a_request_that_has_no_answer_yet_is_401_when_its_key_is_revoked() -> None:
    async with room() as house:
        key = await house.key("ci")
        asking = asyncio.create_task(house.client.get("/api/slow", headers=key))
        await asyncio.wait_for(house.waiting.wait(), DEADLINE_S)
        await house.keys.revoke(OWNER, "ci")
        answer = await asyncio.wait_for(asking, DEADLINE_S)
        assert answer.status_code == 401
        assert "revoked" in answer.json()["detail"]


async def test_a_session_is_served_to_the_key_that_opened_it_and_to_no_other() -> None:
    async with room(find_owner=owned_by(ME)) as house:
        one, other = await house.key("one"), await house.key("other")
        begun = await house.client.post("/mcp", json=INITIALIZE, headers={**one, **MCP_HEADERS})
        assert begun.status_code == 200, begun.text
        session = {**MCP_HEADERS, "mcp-session-id": begun.headers["mcp-session-id"]}
        for headers, status in (({**session, **one}, 200), ({**session, **other}, 404)):
            answer = await house.client.post("/mcp", json=LIST, headers=headers)
            assert answer.status_code == status, answer.text
        assert (await house.client.post("/mcp", json=LIST, headers=session)).status_code == 404
        await house.keys.revoke(OWNER, "one")
        refused = await house.client.post("/mcp", json=LIST, headers={**session, **one})
        assert refused.status_code == 401
        # A key of the same name is another key.
        again = await house.key("one")
        answer = await house.client.post("/mcp", json=LIST, headers={**session, **again})
        assert answer.status_code == 404


async def test_a_keyless_session_is_no_keys_session() -> None:
    async with room(find_owner=owned_by(ME)) as house:
        key = await house.key("one")
        begun = await house.client.post("/mcp", json=INITIALIZE, headers=MCP_HEADERS)
        session = {**MCP_HEADERS, "mcp-session-id": begun.headers["mcp-session-id"]}
        answer = await house.client.post("/mcp", json=LIST, headers={**session, **key})
        assert answer.status_code == 404


async def test_the_listening_stream_of_a_session_ends_with_its_key() -> None:
    async with room() as house:
        key = await house.key("one")
        begun = await house.client.post("/mcp", json=INITIALIZE, headers={**key, **MCP_HEADERS})
        session = {**MCP_HEADERS, **key, "mcp-session-id": begun.headers["mcp-session-id"]}
        [credential] = {f"key:{k.id}" for k in await house.store.keys()}
        async with (
            asyncio.timeout(DEADLINE_S),
            house.client.stream("GET", "/mcp", headers=session) as answer,
        ):
            await until(lambda: house.keys.leases.held(credential) == 1)
            await house.keys.revoke(OWNER, "one")
            async for _ in answer.aiter_bytes():
                pass


async def test_an_sse_stream_ends_with_its_key_and_takes_no_other_keys_messages() -> None:
    async with room() as house:
        one, other = await house.key("one"), await house.key("other")
        async with (
            asyncio.timeout(DEADLINE_S),
            house.client.stream("GET", "/sse", headers=one) as answer,
        ):
            lines = answer.aiter_lines()
            while not (line := await anext(lines)).startswith("data: "):
                pass
            where = line.removeprefix("data: ")
            assert (await house.client.post(where, json=LIST, headers=other)).status_code == 404
            assert (await house.client.post(where, json=LIST, headers=one)).status_code == 202
            await house.keys.revoke(OWNER, "one")
            async for _ in lines:
                pass


# ── Wrong keys in numbers ──


async def test_many_wrong_keys_are_told_to_wait_and_lock_nobody_out() -> None:
    async with room() as house:
        key = await house.key("ci")
        wrong = {"authorization": "Bearer dck_wrong"}
        answers = [await house.client.get("/who", headers=wrong) for _ in range(WRONG_AT_ONCE + 2)]
        assert {a.status_code for a in answers[:WRONG_AT_ONCE]} == {401}
        assert {a.status_code for a in answers[WRONG_AT_ONCE:]} == {429}
        assert int(answers[-1].headers["retry-after"]) > 0
        assert (await house.client.get("/who", headers=key)).status_code == 200


async def test_wrong_keys_are_in_the_audit_once_and_without_their_text() -> None:
    async with room() as house:
        for _ in range(5):
            await house.client.get("/who", headers={"authorization": "Bearer dck_s3cr3t"})
        house.audit.close()
        await house.audit.run()
        entries = (await house.store.list_audit()).items
        assert [(e.action, e.target, e.outcome) for e in entries] == [
            ("authenticate", "127.0.0.1", "unauthenticated")
        ]
        assert "s3cr3t" not in repr(entries)


def test_what_is_remembered_of_wrong_keys_is_bounded() -> None:
    clock = FakeClock()
    wrong = WrongProofs(clock)
    for number in range(MAX_PEERS + 50):
        wrong.note(f"peer {number}")
    assert len(wrong) == MAX_PEERS
    assert wrong.note("peer 0")[0] == 1
    assert wrong.note("peer 0")[0] == 2
    clock.advance(61)
    assert wrong.note("peer 0")[0] == 1


@pytest.mark.parametrize(
    ("peer", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("junk", "unknown"),
    ],
)
def test_who_has_a_network_is_counted_as_one(peer: str | None, group: str) -> None:
    assert group_of(peer) == group

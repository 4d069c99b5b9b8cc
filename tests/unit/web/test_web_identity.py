"""Tokens of an identity provider: one for this server lets in, everything else is one 401."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from mcp.server import Server
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dicode_mcp.clock import SystemClock
from dicode_mcp.config import ServerConfig
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor.lineage import Origin
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.keys import Keys
from dicode_mcp.service.principal import local_principal
from dicode_mcp.testing.callers import held_by, owned_by
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.bearers import Bearers
from dicode_mcp.web.identity import Identity, Provider, provider_of
from dicode_mcp.web.jwks import FRESH_S, MAX_BYTES, RETRY_S, STALE_S, KeySet, fetch_json
from dicode_mcp.web.server import HttpServer

ISSUER = "https://id.example"
AUDIENCE = "https://dicode.example/mcp"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(kid: str, key: Any, **more: Any) -> dict[str, Any]:
    kinds = {"rsa": RSAAlgorithm, "ec": ECAlgorithm, "ed": OKPAlgorithm}
    shown = kinds[kid.partition("-")[0]].to_jwk(key.public_key(), as_dict=True)
    return {**shown, "kid": kid, **more}


KEYS: dict[str, Any] = {
    "keys": [
        jwk("rsa", RSA, use="sig"),
        jwk("rsa-short", SHORT),
        jwk("rsa-enc", OTHER, use="enc"),
        jwk("rsa-only512", RSA, alg="RS512"),
        jwk("ec", EC),
        jwk("ed", ED),
        {"kty": "oct", "kid": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"},
    ]
}


class Provided:
    """The provider's answers, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.documents: dict[str, Any] = {
            f"{ISSUER}/.well-known/openid-configuration": {
                "issuer": ISSUER,
                "jwks_uri": f"{ISSUER}/keys",
            },
            f"{ISSUER}/keys": KEYS,
        }

    def fetch(self, url: str) -> dict[str, Any]:
        self.asked.append(url)
        found = self.documents.get(url)
        if found is None:
            raise OSError("not found")
        return found


class Room:
    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.provided = Provided()
        provider = Provider(ISSUER, frozenset({AUDIENCE}), **options)
        self.identity = Identity(provider, self.clock, fetch=self.provided.fetch)

    def claims(self, **more: Any) -> dict[str, Any]:
        now = self.clock.now_ms() // 1000
        given = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now,
            "exp": now + 300,
            "scope": "openid read run:infra/*",
            **more,
        }
        return {name: value for name, value in given.items() if value is not None}

    def token(
        self, key: Any = RSA, alg: str = "RS256", kid: str = "rsa", head: Any = None, **more: Any
    ) -> str:
        return jwt.encode(self.claims(**more), key, alg, headers={"kid": kid, **(head or {})})

    async def refused(self, token: str, code: Code = Code.UNAUTHENTICATED) -> DicodeError:
        with pytest.raises(DicodeError) as caught:
            await self.identity.verify(token, "mcp")
        assert caught.value.code is code, caught.value.message
        assert not token or token not in caught.value.message
        return caught.value


async def test_a_token_gives_what_its_scopes_say_and_nothing_more() -> None:
    room = Room()
    proven = await room.identity.verify(room.token(), "mcp")
    who = proven.principal
    assert (who.actor, who.surface) == ("oauth:ada", "mcp")
    assert who.credential is not None
    assert who.credential.startswith("oauth:")
    assert who.allows("run", "infra/x")
    assert not who.allows("run", "web/x")
    assert who.allows("read", "web/x")
    assert not who.allows("approve", "infra/x")
    assert proven.ends_ms is not None
    assert proven.ends_ms > room.clock.now_ms()


@pytest.mark.parametrize(
    ("key", "alg", "kid"), [(RSA, "PS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")]
)
async def test_the_usual_algorithms_are_taken(key: Any, alg: str, kid: str) -> None:
    room = Room()
    assert (await room.identity.verify(room.token(key, alg, kid), "http")).principal.scopes


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": None, "scp": ["read"]},
        {"scope": "dicode:read"},
        {"scope": ["read", "email"]},
        {"aud": ["other", AUDIENCE]},
        {"sub": None, "client_id": "robot"},
        {"nbf": 0},
    ],
)
async def test_the_forms_that_providers_use_are_read(claims: dict[str, Any]) -> None:
    room = Room()
    who = (await room.identity.verify(room.token(**claims), "mcp")).principal
    assert who.allows("read", "any")


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://id.example/"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "https://other.example"},
    "no audience": {"aud": None},
    "a part of the audience": {"aud": AUDIENCE[:-1]},
    "expired": {"exp": 1},
    "no end": {"exp": None},
    "an end that is true": {"exp": True},
    "an end in words": {"exp": "tomorrow"},
    "an end beyond numbers": {"exp": float("inf")},
    "not yet": {"nbf": 2**40},
    "made in the future": {"iat": 2**40},
    "nobody": {"sub": None},
    "a subject that is a list": {"sub": ["ada"]},
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
async def test_a_token_that_is_not_for_us_now_is_401(name: str) -> None:
    room = Room()
    await room.refused(room.token(**BAD_CLAIMS[name]))


async def test_a_token_that_nobody_signed_for_us_is_401() -> None:
    room = Room()
    public = RSA.public_key().public_numbers().n.to_bytes(256, "big")
    good = room.token()
    head, body, mark = good.split(".")
    no_key: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = room.token(SHORT, kid="rsa-short")
    wrong = [
        "",
        "x",
        "a.b.c",
        good[:-8] + "AAAAAAAA",
        f"{head}.{body}.",
        f"{head}.{body[:-2]}AA.{mark}",
        room.token(OTHER),
        room.token(OTHER, kid="rsa-enc"),
        short,
        room.token(RSA, "RS256", kid="rsa-only512"),
        room.token(EC, "ES256", kid="rsa"),
        room.token(kid="unknown"),
        jwt.encode(room.claims(), public, "HS256", headers={"kid": "rsa"}),
        jwt.encode(
            room.claims(), b"secret-secret-secret-secret-secret", "HS256", headers={"kid": "oct"}
        ),
        jwt.encode(room.claims(), no_key, "none", headers={"kid": "rsa"}),
        room.token(head={"crit": ["x"], "x": 1}),
        good + "." + "A" * 20_000,
    ]
    answers = {(await room.refused(token)).message for token in wrong}
    assert len(answers) == 1
    await room.identity.verify(good, "mcp")


async def test_a_token_without_a_scope_of_ours_is_told_so() -> None:
    room = Room()
    assert "scope" in (await room.refused(room.token(scope="openid"), Code.FORBIDDEN)).message
    strict = Room(required_scopes=frozenset({"dicode"}))
    await strict.refused(strict.token(), Code.FORBIDDEN)
    await strict.identity.verify(strict.token(scope="dicode read"), "mcp")
    renamed = Room(scopes_claim="https://id.example/rights")
    await renamed.refused(renamed.token(), Code.FORBIDDEN)
    rights: dict[str, Any] = {"https://id.example/rights": ["run"]}
    await renamed.identity.verify(renamed.token(**rights), "mcp")


async def test_a_token_ends_with_its_time_and_a_little() -> None:
    room = Room()
    token = room.token()
    room.clock.advance(329)
    await room.identity.verify(token, "mcp")
    room.clock.advance(1)
    await room.refused(token)


# ── The provider's keys ──


async def test_keys_are_fetched_once_and_again_when_they_are_old() -> None:
    room = Room()
    for _ in range(3):
        await room.identity.verify(room.token(), "mcp")
    assert len(room.provided.asked) == 2
    room.clock.advance(FRESH_S)
    await room.identity.verify(room.token(), "mcp")
    assert len(room.provided.asked) == 4


async def test_unknown_key_ids_do_not_make_us_ask_for_each() -> None:
    room = Room()
    for number in range(20):
        await room.refused(room.token(kid=f"guess {number}"))
    assert len(room.provided.asked) == 2
    room.provided.documents[f"{ISSUER}/keys"] = {"keys": [jwk("rsa-new", OTHER)]}
    room.clock.advance(RETRY_S)
    await room.identity.verify(room.token(OTHER, kid="rsa-new"), "mcp")
    await room.refused(room.token())


async def test_a_provider_that_is_away_is_done_without_for_a_day() -> None:
    room = Room()
    await room.identity.verify(room.token(), "mcp")
    room.provided.documents = {}
    room.clock.advance(FRESH_S)
    await room.identity.verify(room.token(), "mcp")
    room.clock.advance(STALE_S)
    await room.refused(room.token(), Code.UNREACHABLE)


async def test_a_provider_that_never_answered_is_said_so() -> None:
    room = Room()
    room.provided.documents = {}
    await room.refused(room.token(), Code.UNREACHABLE)


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example", "jwks_uri": f"{ISSUER}/keys"},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
        {"issuer": ISSUER, "jwks_uri": "http://id.example/keys"},
    ],
)
async def test_metadata_that_is_not_the_issuers_is_not_believed(document: dict[str, Any]) -> None:
    room = Room()
    room.provided.documents[f"{ISSUER}/.well-known/openid-configuration"] = document
    await room.refused(room.token(), Code.UNREACHABLE)


# ── Over HTTP, with a provider on this machine ──


@contextmanager
def provider(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Generator[str]:
    """Serve what is in ``answers`` by path; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def _who(request: Request) -> JSONResponse:
    return JSONResponse({"actor": request.state.principal.actor})


@asynccontextmanager
async def serving(config: ServerConfig) -> AsyncGenerator[tuple[httpx.AsyncClient, Keys]]:
    clock, store = SystemClock(), MemoryStore()
    audit = Audit(store, clock)
    keys = Keys(store, [], audit, clock)
    found = provider_of(config)
    assert found is not None
    identity = Identity(found, clock, public_url=config.public_url)
    settings = WebSettings(
        own_uid=os.geteuid(),
        find_owner=owned_by(None),
        judge=held_by(Origin.CLIENT),
        bearers=Bearers(keys, audit, clock, identity),
        identity=identity,
        public_url=config.public_url,
    )
    app = create_app(
        Server("test"),
        settings,
        readiness=lambda: Readiness.READY,
        routes=[Route("/who", _who)],
    )
    async with (
        HttpServer(app, port=0).listening() as where,
        httpx.AsyncClient(base_url=where.url, timeout=DEADLINE_S, trust_env=False) as client,
    ):
        yield client, keys


async def test_a_client_finds_the_provider_gets_a_token_and_is_let_in() -> None:
    answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
    with provider(answers) as issuer:
        config = ServerConfig.model_validate(
            {"public_url": "https://dicode.example", "oauth": {"issuer": issuer}}
        )
        answers["/.well-known/oauth-authorization-server"] = (
            200,
            {},
            json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/keys"}).encode(),
        )
        answers["/keys"] = (200, {}, json.dumps(KEYS).encode())
        async with serving(config) as (client, keys):
            refused = await client.post("/mcp", json={})
            assert refused.status_code == 401
            url = "https://dicode.example/.well-known/oauth-protected-resource/mcp"
            assert f'resource_metadata="{url}"' in refused.headers["www-authenticate"]
            shown = (await client.get("/.well-known/oauth-protected-resource/mcp")).json()
            assert shown["resource"] == "https://dicode.example/mcp"
            assert shown["authorization_servers"] == [issuer]
            assert "run" in shown["scopes_supported"]
            room = Room()
            room.clock = SystemClock()  # pyright: ignore[reportAttributeAccessIssue]
            good = room.token(iss=issuer)
            answer = await client.get("/who", headers={"authorization": f"Bearer {good}"})
            assert answer.json() == {"actor": "oauth:ada"}
            bad = await client.get("/who", headers={"authorization": f"Bearer {good[:-9]}"})
            assert bad.status_code == 401
            assert 'error="invalid_token"' in bad.headers["www-authenticate"]
            other = room.token(iss=issuer, scope="openid")
            less = await client.get("/who", headers={"authorization": f"Bearer {other}"})
            assert less.status_code == 403
            assert 'error="insufficient_scope"' in less.headers["www-authenticate"]
            assert other not in less.text
            made = await keys.create(local_principal("cli"), "ci", ["read"])
            own = await client.get("/who", headers={"authorization": f"Bearer {made['key']}"})
            assert own.json()["actor"].startswith("key:ci#")


def test_what_is_fetched_is_bounded_and_from_nowhere_else() -> None:
    answers: dict[str, tuple[int, dict[str, str], bytes]] = {
        "/long": (200, {}, b'{"a": "' + b"x" * MAX_BYTES + b'"}'),
        "/list": (200, {}, b"[]"),
        "/text": (200, {}, b"nothing"),
        "/away": (302, {"location": "/good"}, b""),
        "/good": (200, {}, b'{"keys": []}'),
    }
    with provider(answers) as base:
        assert fetch_json(f"{base}/good") == {"keys": []}
        for path in ("/long", "/list", "/text", "/away", "/none"):
            with pytest.raises((OSError, ValueError)):
                fetch_json(f"{base}{path}")


@pytest.mark.parametrize(
    "place",
    [
        "/realms/home/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/realms/home",
        "/realms/home/.well-known/oauth-authorization-server",
    ],
)
async def test_an_issuer_with_a_path_is_found_where_its_kind_has_its_metadata(place: str) -> None:
    issuer, provided = f"{ISSUER}/realms/home", Provided()
    provided.documents = {
        f"{ISSUER}{place}": {"issuer": issuer, "jwks_uri": f"{ISSUER}/keys"},
        f"{ISSUER}/keys": KEYS,
    }
    assert await KeySet(issuer, None, FakeClock(), provided.fetch).key("rsa") is not None


async def test_a_key_set_given_by_its_address_is_asked_there_alone() -> None:
    provided = Provided()
    keys = KeySet(ISSUER, f"{ISSUER}/keys", FakeClock(), provided.fetch)
    assert await keys.key("rsa") is not None
    assert await keys.key("rsa-enc") is None
    assert provided.asked == [f"{ISSUER}/keys"]

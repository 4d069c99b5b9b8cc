"""Tokens of an identity provider at a whole server, with a provider of its own on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from keycalls import Holder, calling, code_of, make_key, owner
from liveserver import Live, Serve

from dicode_mcp.config import ServerConfig
from dicode_mcp.tools.server import ALL_TOOLS
from dicode_mcp.web import jwks

pytestmark = pytest.mark.slow

FIRST = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SECOND = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = "https://dicode.example"
METADATA = "/.well-known/oauth-protected-resource"


class Provider:
    """Publishes keys, and signs tokens with any."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.keys: dict[str, rsa.RSAPrivateKey] = {"first": FIRST}
        self.asked: list[str] = []

    def answer(self, path: str) -> dict[str, Any] | None:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        if path == "/keys":
            shown = [
                {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
                for kid, key in self.keys.items()
            ]
            return {"keys": shown}
        return None

    def token(
        self, key: rsa.RSAPrivateKey = FIRST, *, kid: str = "first", alg: str = "RS256", **more: Any
    ) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": f"{PUBLIC}/mcp",
            "sub": "ada",
            "iat": now,
            "exp": now + 300,
            "scope": "openid dicode:run:one",
            **more,
        }
        return jwt.encode(claims, key, alg, headers={"kid": kid})


@pytest.fixture
def provider() -> Generator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = made.answer(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Provider(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def config_of(provider: Provider, **more: Any) -> ServerConfig:
    oauth = {"issuer": provider.issuer}
    return ServerConfig.model_validate({"port": 0, "public_url": PUBLIC, "oauth": oauth, **more})


async def two_tasks(live: Live) -> None:
    for name in ("one", "two"):
        live.write(name, "result = 'done'\n")
    await live.sync()


async def test_a_token_does_at_the_server_what_its_scopes_say(
    serve: Serve, provider: Provider
) -> None:
    async with (
        serve(http=True, server_config=config_of(provider)) as live,
        calling(live) as client,
    ):
        await two_tasks(live)
        token = provider.token()
        holder = Holder(client, token)
        expected = {tool.name for tool in ALL_TOOLS if tool.verb in ("read", "run")}
        assert await holder.tools() == expected
        run = await holder.call("run_task", id="one", wait_seconds=30)
        assert (run["status"], run["return_value"]) == ("success", "done")
        assert code_of(await holder.call("run_task", id="two")) == "task_not_found"
        listed = (await holder.request("GET", "/api/tasks")).json()["tasks"]
        assert [task["id"] for task in listed] == ["one"]
        entries = (await owner(live, "get_audit", actor="oauth:ada"))["entries"]
        assert {entry["action"] for entry in entries} == {"run_task"}
        assert token.rpartition(".")[2] not in json.dumps(await owner(live, "get_audit"))
        # A key of ours is judged as ever, beside it.
        key = await make_key(live, "ci", "read")
        assert (await Holder(client, key).request("GET", "/api/tasks")).status_code == 200
    for file in live.data.rglob("*"):
        if file.is_file():
            assert token.rpartition(".")[2].encode() not in file.read_bytes(), file


async def test_a_client_that_is_refused_is_told_where_tokens_come_from(
    serve: Serve, provider: Provider
) -> None:
    async with (
        serve(http=True, server_config=config_of(provider)) as live,
        calling(live) as client,
    ):
        elsewhere = {"host": "dicode.example"}
        for path, told in (("/mcp", f"{METADATA}/mcp"), ("/api/tasks", METADATA)):
            refused = await client.get(path, headers=elsewhere)
            assert refused.status_code == 401
            challenge = refused.headers["www-authenticate"]
            assert challenge == f'Bearer realm="dicode", resource_metadata="{PUBLIC}{told}"'
            # RFC 9728: what it names is about the very address that was called.
            shown = (await client.get(told, headers=elsewhere)).json()
            assert shown["resource"] == f"{PUBLIC}{told.removeprefix(METADATA)}"
            assert shown["authorization_servers"] == [provider.issuer]
        assert provider.asked == []


async def test_a_token_that_is_not_for_this_server_now_is_one_401_and_does_nothing(
    serve: Serve, provider: Provider
) -> None:
    now = int(time.time())
    public = FIRST.public_key().public_numbers().n.to_bytes(256, "big")
    no_key: Any = None
    wrong = {
        "another issuer": provider.token(iss="https://evil.example"),
        "another audience": provider.token(aud="https://other.example/mcp"),
        "expired": provider.token(exp=now - 60),
        "not yet": provider.token(nbf=now + 600),
        "unknown key": provider.token(kid="third"),
        "another's signature": provider.token(SECOND),
        "none": provider.token(no_key, alg="none"),
        "a shared secret": jwt.encode({"iss": provider.issuer}, public, "HS256"),
        "no token": "garbage",
    }
    async with (
        serve(http=True, server_config=config_of(provider)) as live,
        calling(live) as client,
    ):
        await two_tasks(live)
        answers: set[str] = set()
        for name, token in wrong.items():
            holder = Holder(client, token)
            for answer in (
                await holder.send("tools/call", name="run_task", arguments={"id": "one"}),
                await holder.request("POST", "/api/tasks/one/run", json={}),
            ):
                assert answer.status_code == 401, (name, answer.text)
                assert 'error="invalid_token"' in answer.headers["www-authenticate"], name
                answers.add(answer.json()["detail"])
        assert len(answers) == 1
        assert (await live.call("get_runs"))["runs"] == []
        # However many came with a key id that nobody has, the provider was asked once.
        assert provider.asked.count("/keys") == 1


async def test_a_new_key_of_the_providers_is_taken_and_an_old_one_no_more(
    serve: Serve, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "RETRY_S", 0.0)
    async with (
        serve(http=True, server_config=config_of(provider)) as live,
        calling(live) as client,
    ):
        old = Holder(client, provider.token())
        new = Holder(client, provider.token(SECOND, kid="second"))
        assert (await old.request("GET", "/api/tasks")).status_code == 200
        assert (await new.request("GET", "/api/tasks")).status_code == 401
        provider.keys = {"second": SECOND}
        assert (await new.request("GET", "/api/tasks")).status_code == 200
        assert (await old.request("GET", "/api/tasks")).status_code == 401


async def test_with_an_identity_provider_another_address_needs_no_key_of_ours(
    serve: Serve, provider: Provider
) -> None:
    everywhere = config_of(provider, host="0.0.0.0")
    async with serve(http=True, server_config=everywhere) as live:
        assert live.server.url is not None
        local = live.server.url.replace("0.0.0.0", "127.0.0.1")
        async with calling(live) as client:
            client.base_url = local
            named = {"host": "dicode.example"}
            assert (await client.get("/api/tasks", headers=named)).status_code == 401
            holder = Holder(client, provider.token())
            assert (await holder.request("GET", "/api/tasks", headers=named)).status_code == 200

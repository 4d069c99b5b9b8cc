"""The bundled secret providers, against servers that answer as the real services do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fakeservices import Answer, HttpService, Received
from liveserver import Live, Serve

import dicode_agents
from dicode_mcp.config.model import BundledConfig

FOLDER = Path(dicode_agents.__file__).parent / "secret-providers"
TOKEN = "tok-c4nary-0f-the-m1ne"
VALUE = "value/c4nary+of=the"
USES = "import json, os\nresult = {n: os.environ.get(n) for n in ('A', 'B') if n in os.environ}\n"
CHECK = "import os\nresult = [os.environ.get(n) == v for n, v in {wanted!r}.items()]\n"
NAMES = {"vault": "VAULT_TOKEN", "doppler": "DOPPLER_TOKEN", "onepassword": "OP_CONNECT_TOKEN"}


def as_json(value: Any, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


class Connect(HttpService):
    """A Connect server with one vault and items of the title and fields given."""

    VAULT = "v" * 26

    def __init__(self, items: Mapping[str, list[dict[str, str]]]) -> None:
        super().__init__()
        self.items = items

    def answer(self, request: Received) -> Answer:
        url = urlsplit(request.path)
        wanted = parse_qs(url.query).get("filter", [""])[0].partition(" eq ")[2].strip('"')
        parts = url.path.strip("/").split("/")
        if parts == ["v1", "vaults"]:
            return as_json([{"id": self.VAULT}] if wanted == "Production" else [])
        titles = list(self.items)
        if parts[-1] == "items":
            return as_json([{"id": f"{n:026d}"} for n, t in enumerate(titles) if t == wanted])
        return as_json({"id": parts[-1], "fields": self.items[titles[int(parts[-1])]]})


def bundled(name: str, **params: Any) -> BundledConfig:
    address = urlsplit(str(params.get("address", "")))
    net = [f"{address.hostname}:{address.port}"] if address.port else []
    quick: dict[str, Any] = {"retry": {"attempts": 1}, "net": net}
    return BundledConfig(overrides={f"secret-providers/{name}": {**quick, "params": params}})


def manifest(name: str, *names: str, more: str = "") -> str:
    entries = [f"{{name: {n}, from: 'task:bundled/secret-providers/{name}'{more}}}" for n in names]
    env = ", ".join(entries)
    return f"runtime: python\ntrigger: {{manual: true}}\npermissions: {{env: [{env}]}}\n"


def environ() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nowhere"}


async def gets(live: Live, name: str, wanted: dict[str, str]) -> dict[str, Any]:
    """Run a task that compares what it got; nothing of it may be shown."""
    await live.call("secrets_set", name=NAMES[name], value=TOKEN)
    live.write("uses", CHECK.format(wanted=wanted), manifest(name, *wanted))
    await live.sync()
    run = await live.run("uses")
    await nothing_shown(live)
    return run


async def nothing_shown(live: Live) -> None:
    for listed in (await live.call("get_runs", limit=100))["runs"]:
        run = await live.call("get_run", run_id=listed["run_id"])
        logs = await live.call("get_logs", run_id=listed["run_id"])
        assert TOKEN not in str(run) + str(logs)
        assert VALUE not in str(run) + str(logs)


async def refused(live: Live, name: str, *names: str) -> dict[str, Any]:
    """Run a task whose provider fails; gives its error."""
    live.write("uses", USES, manifest(name, *names))
    await live.sync()
    run = await live.run("uses")
    assert run["reason"] == "secret_missing"
    await nothing_shown(live)
    return run["error"]


def test_the_file_that_providers_share_is_the_same_in_each() -> None:
    assert len({(FOLDER / name / "remote.py").read_bytes() for name in NAMES}) == 1


async def test_vault_gives_the_fields_of_a_secret_and_of_other_places(serve: Serve) -> None:
    answers = [as_json({"data": {"data": {"A": VALUE}}}), as_json({"data": {"data": {"pw": 7}}})]
    async with HttpService(answers).listening() as vault:
        config = bundled(
            "vault", address=vault.url, path="app/prod", places="B=other place#pw", namespace="team"
        )
        async with serve(bundled=config, environ=environ()) as live:
            run = await gets(live, "vault", {"A": VALUE, "B": "7"})
            assert run["return_value"] == [True, True], run
        first, second = vault.got
        assert first.path == "/v1/secret/data/app/prod"
        assert second.path == "/v1/secret/data/other%20place"
        assert first.headers["x-vault-token"] == TOKEN
        assert first.headers["x-vault-namespace"] == "team"


async def test_vault_of_the_old_engine_is_read_too(serve: Serve) -> None:
    async with HttpService([as_json({"data": {"A": VALUE}})]).listening() as vault:
        config = bundled("vault", address=vault.url, path="app", version="1", mount="kv")
        async with serve(bundled=config, environ=environ()) as live:
            assert (await gets(live, "vault", {"A": VALUE}))["return_value"] == [True]
        assert vault.got[0].path == "/v1/kv/app"


async def test_what_vault_does_not_have_is_missing_and_may_be_optional(serve: Serve) -> None:
    async with HttpService([as_json({"errors": []}, 404)]).listening() as vault:
        config = bundled("vault", address=vault.url, path="app")
        async with serve(bundled=config, environ=environ()) as live:
            await live.call("secrets_set", name="VAULT_TOKEN", value=TOKEN)
            error = await refused(live, "vault", "A")
            assert error["code"] == "required_secret_missing"
            assert "no value for A" in error["message"]
            live.write("may", USES, manifest("vault", "A", more=", optional: true"))
            await live.sync()
            assert (await live.run("may"))["return_value"] == {}


async def test_doppler_is_asked_once_for_all_and_its_answer_is_kept_a_while(serve: Serve) -> None:
    async with HttpService([as_json({"A": VALUE, "THERE": "b-value"})]).listening() as doppler:
        config = bundled(
            "doppler", address=doppler.url, project="app", config="prd", places="B = THERE"
        )
        async with serve(bundled=config, environ=environ()) as live:
            wanted = {"A": VALUE, "B": "b-value"}
            assert (await gets(live, "doppler", wanted))["return_value"] == [True, True]
            assert (await live.run("uses"))["return_value"] == [True, True]
        (request,) = doppler.got
        url = urlsplit(request.path)
        assert url.path == "/v3/configs/config/secrets/download"
        assert parse_qs(url.query) == {"format": ["json"], "project": ["app"], "config": ["prd"]}
        assert request.headers["authorization"] == f"Bearer {TOKEN}"


async def test_onepassword_finds_vault_item_and_field(serve: Serve) -> None:
    items = {
        "A": [
            {"id": "username", "label": "username", "value": "ann", "purpose": "USERNAME"},
            {"id": "password", "label": "password", "value": VALUE, "purpose": "PASSWORD"},
        ],
        "My API": [{"id": "x1", "label": "Credential", "value": "b-value"}],
    }
    async with Connect(items).listening() as connect:
        config = bundled(
            "onepassword", address=connect.url, vault="Production", places="B=My API#Credential"
        )
        async with serve(bundled=config, environ=environ()) as live:
            run = await gets(live, "onepassword", {"A": VALUE, "B": "b-value"})
            assert run["return_value"] == [True, True], run
        assert connect.got[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_onepassword_says_which_vault_it_does_not_see(serve: Serve) -> None:
    async with Connect({}).listening() as connect:
        config = bundled("onepassword", address=connect.url, vault="Elsewhere")
        async with serve(bundled=config, environ=environ()) as live:
            await live.call("secrets_set", name="OP_CONNECT_TOKEN", value=TOKEN)
            error = await refused(live, "onepassword", "A")
            assert error["code"] == "provider_misconfigured"
            assert "'Elsewhere'" in error["message"]


REFUSALS = [
    (as_json({"errors": [TOKEN]}, 403), "provider_misconfigured", "answered 403"),
    (as_json({"errors": [TOKEN]}, 503), "provider_unavailable", "answered 503"),
    (Answer(200, {}, VALUE.encode()), "provider_misconfigured", "did not answer with JSON"),
    (Answer(302, {"Location": "http://127.0.0.1:1/x"}), "provider_misconfigured", "302"),
]


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize(("answer", "code", "told"), REFUSALS)
async def test_a_refusal_has_a_kind_and_shows_neither_token_nor_value(
    serve: Serve, name: str, answer: Answer, code: str, told: str
) -> None:
    own = {"vault": {"path": "app"}, "doppler": {}, "onepassword": {"vault": "Production"}}[name]
    async with HttpService([answer]).listening() as service:
        config = bundled(name, address=service.url, **own)
        async with serve(bundled=config, environ=environ()) as live:
            await live.call("secrets_set", name=NAMES[name], value=TOKEN)
            error = await refused(live, name, "A")
        assert (error["code"], told in error["message"]) == (code, True), error
        assert len(service.got) == 1


async def test_a_provider_that_is_not_set_up_says_what_to_set(serve: Serve) -> None:
    async with serve(environ=environ()) as live:
        assert "missing" not in await live.call("secrets_list"), "nobody asks the providers yet"
        error = await refused(live, "vault", "A")
        missing = (await live.call("secrets_list"))["missing"]
        assert [line["name"] for line in missing] == ["VAULT_TOKEN"]
        assert error["code"] == "provider_misconfigured"
        assert "dicode secrets set VAULT_TOKEN" in error["hint"]
        await live.call("secrets_set", name="VAULT_TOKEN", value=TOKEN)
        error = await refused(live, "vault", "A")
        assert "the parameter path is not set" in error["message"]


async def test_a_token_does_not_travel_in_the_clear(serve: Serve) -> None:
    config = bundled("vault", address="http://vault.example:8200", path="app")
    async with serve(bundled=config, environ=environ()) as live:
        await live.call("secrets_set", name="VAULT_TOKEN", value=TOKEN)
        error = await refused(live, "vault", "A")
        assert error["code"] == "provider_misconfigured"
        assert "over plain http" in error["message"]


async def test_a_service_that_is_not_there_is_unavailable(serve: Serve) -> None:
    async with HttpService().listening() as gone:
        url = gone.url
    async with serve(bundled=bundled("vault", address=url, path="a"), environ=environ()) as live:
        await live.call("secrets_set", name="VAULT_TOKEN", value=TOKEN)
        error = await refused(live, "vault", "A")
        assert error["code"] == "provider_unavailable"
        assert "cannot be reached" in error["message"]


GIVES = f"from dicode_sdk import output\noutput({{'A': {VALUE!r}}}, secret=True)\n"
HANDS_ON = """
import os
from dicode_sdk import dicode
result = dicode.run_task("child", {"given": os.environ["A"]})["runID"]
"""
TELLS = """
from dicode_sdk import params
print("got", params.get("given"))
if params.get("given"):
    raise ValueError("cannot use " + params.get("given"))
"""


async def test_after_a_restart_a_replay_and_its_retry_do_not_show_what_a_provider_gave(
    serve: Serve,
) -> None:
    manual = "runtime: python\ntrigger: {manual: true}\n"
    env = "env: [{name: A, from: 'task:gives'}]"
    async with serve(environ=environ()) as live:
        live.write("gives", GIVES, f"{manual}provider: {{}}\n")
        live.write(
            "hands-on", HANDS_ON, f"{manual}permissions: {{{env}, dicode: {{tasks: [child]}}}}\n"
        )
        retry = "retry: {attempts: 2, backoff: 10ms}\n"
        live.write("child", TELLS, f"{manual}params: {{given: ''}}\n{retry}")
        await live.sync()
        await live.run("hands-on")
        runs = (await live.call("get_runs", task="child", limit=10))["runs"]
        assert "[secret A]" in str(runs)
    async with serve(environ=environ()) as live:
        again = await live.call("replay_run", run_id=runs[-1]["run_id"], wait_seconds=50)
        assert "[secret A]" in str(again), again
        await nothing_shown(live)
    for name in ("state.db", "logs.db"):
        assert VALUE.encode() not in (live.data / name).read_bytes()

"""Secrets over HTTP, on the page, from tasks and for webhooks, through a whole server."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from liveserver import Live, Serve, write_task

from dicode_mcp.config.model import SecretProvider, SecretsConfig
from dicode_mcp.testing.waiting import DEADLINE_S

VALUE = "hunter2-hunter2"
WRITES = (
    "runtime: {}\ntrigger: {{manual: true}}\npermissions: {{dicode: {{secrets_write: true}}}}\n"
)
NEEDS = "runtime: python\ntrigger: {manual: true}\npermissions: {env: [{name: T, secret: made}]}\n"
USES = "import os\nresult = len(os.environ['T'])\n"


@pytest.fixture
async def live(serve: Serve) -> AsyncGenerator[Live]:
    async with serve(http=True, environ=os.environ) as made:
        yield made


def client(live: Live, **headers: str) -> httpx.AsyncClient:
    assert live.server.url
    return httpx.AsyncClient(
        base_url=live.server.url, trust_env=False, timeout=DEADLINE_S, headers=headers
    )


async def test_rest_takes_values_and_gives_names(live: Live) -> None:
    async with client(live) as http:
        made = await http.put("/api/secrets/API_KEY", json={"value": VALUE})
        again = await http.put("/api/secrets/API_KEY", json={"value": VALUE})
        assert (made.status_code, again.status_code) == (201, 200)
        listed = await http.get("/api/secrets")
        assert [s["name"] for s in listed.json()["secrets"]] == ["API_KEY"]
        assert (await http.get("/api/secrets/API_KEY")).status_code == 405
        wrong = [
            await http.put("/api/secrets/API_KEY", json={"value": 7, "x": VALUE}),
            await http.put("/api/secrets/API_KEY", content=VALUE),
            await http.put("/api/secrets/.audit", json={"value": VALUE}),
            await http.put("/api/secrets/API_KEY", json={"value": ""}),
            await http.put("/api/secrets/API_KEY", json={"value": VALUE + "\0"}),
            await http.put("/api/secrets/A", json={"value": VALUE}, params={"from": "x"}),
        ]
        assert {answer.status_code for answer in wrong} == {400}
        foreign = await http.put(
            "/api/secrets/B", json={"value": VALUE}, headers={"origin": "https://evil.example"}
        )
        assert foreign.status_code == 403
        gone = await http.delete("/api/secrets/API_KEY")
        assert gone.json() == {"name": "API_KEY", "deleted": True, "breaks": []}
        assert (await http.delete("/api/secrets/API_KEY")).status_code == 404
        assert VALUE not in "".join(a.text for a in (made, again, listed, gone, foreign, *wrong))


async def invited(live: Live, name: str = "made") -> str:
    """Ask as an agent whose client can open pages; gives the page's path."""
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}},
    }
    params: dict[str, Any] = {"name": "secrets_set", "arguments": {"name": name}, "_meta": meta}
    result = (await live.request("tools/call", params))["result"]
    url = result["inputRequests"]["secret"]["params"]["url"]
    assert live.server.url
    assert url.startswith(live.server.url)
    return url.removeprefix(live.server.url)


async def test_a_value_is_typed_on_a_page_that_works_once(live: Live) -> None:
    path = await invited(live)
    origin = {"origin": live.server.url or ""}
    async with client(live) as http:
        page = await http.get(path)
        assert page.status_code == 200
        assert "Set the secret made" in page.text
        assert "<script" not in page.text
        assert page.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        both = await http.post(path, data={"line": VALUE, "text": VALUE}, headers=origin)
        none = await http.post(path, data={"line": ""}, headers=origin)
        assert (both.status_code, none.status_code) == (422, 422)
        done = await http.post(path, data={"line": "", "text": "one\r\ntwo"}, headers=origin)
        assert done.status_code == 200
        assert "made is set" in done.text
        used = [await http.get(path), await http.post(path, data={"line": VALUE}, headers=origin)]
        assert {answer.status_code for answer in used} == {404}
        assert VALUE not in "".join(answer.text for answer in (both, none, done, *used))
    live.write("uses", USES, NEEDS)
    await live.sync()
    assert (await live.run("uses"))["return_value"] == len("one\ntwo")


async def test_a_page_takes_nothing_from_strangers(live: Live) -> None:
    path = await invited(live)
    origin = {"origin": live.server.url or ""}
    async with client(live) as http:
        tries = [
            await http.post(path, data={"line": VALUE}, headers={"origin": "https://evil.example"}),
            await http.post(
                path, data={"line": VALUE}, headers={**origin, "sec-fetch-site": "cross-site"}
            ),
            await http.post(path + "x", data={"line": VALUE}, headers=origin),
            await http.post(path, json={"line": VALUE}, headers=origin),
            await http.get(path, headers={"host": "evil.example"}),
            await http.get(path, headers={"authorization": "Bearer dck_no"}),
        ]
    assert all(400 <= answer.status_code < 500 for answer in tries)
    assert (await live.call("secrets_list"))["secrets"] == []


SETS_PYTHON = f"""
from dicode_sdk import dicode
dicode.secrets_set("made", "{VALUE}")
print("set", "{VALUE}"[:7] + "{VALUE}"[7:])
result = ["{VALUE}", dicode.secrets_delete("never")]
"""
SETS_DENO = f"""
export default async function main({{ dicode }}: any) {{
  await dicode.secrets_set("made", "{VALUE}");
  console.log("set", "{VALUE}");
  await dicode.secrets_delete("never");
  return ["{VALUE}", null];
}}
"""
DELETES = 'from dicode_sdk import dicode\nresult = dicode.secrets_delete("made")\n'


@pytest.mark.parametrize("runtime", ["python", "deno"])
async def test_a_task_that_may_sets_a_secret_which_is_hidden_from_then_on(
    live: Live, runtime: str
) -> None:
    write_task(live.tasks, "sets", SETS_PYTHON, WRITES.format(runtime))
    if runtime == "deno":
        (live.tasks / "sets" / "task.py").unlink()
        (live.tasks / "sets" / "task.ts").write_text(SETS_DENO)
    live.write("uses", USES, NEEDS)
    live.write("deletes", DELETES, WRITES.format("python"))
    await live.sync()
    assert (await live.run("uses"))["error"]["code"] == "secret_missing"
    run = await live.run("sets")
    assert run["status"] == "success", run
    assert run["return_value"][0] == "[secret made]"
    logs = await live.call("get_logs", run_id=run["run_id"])
    assert any("set [secret made]" in line["message"] for line in logs["lines"])
    assert VALUE not in str(logs) + str(run)
    assert (await live.run("uses"))["return_value"] == len(VALUE)
    (line,) = (await live.call("secrets_list"))["secrets"]
    assert (line["updated_by"], line["used_by"]) == ("task:sets", ["uses"])
    await live.run("deletes")
    assert (await live.call("secrets_list"))["secrets"] == []


async def test_a_task_that_may_not_is_told_the_line_to_add(live: Live) -> None:
    live.write("sets", SETS_PYTHON)
    await live.sync()
    error = (await live.run("sets"))["error"]
    assert "permissions.dicode.secrets_write: true" in error["hint"]
    assert VALUE not in str(error)
    assert (await live.call("secrets_list"))["secrets"] == []


ROTATES = """
import os
from dicode_sdk import dicode
dicode.secrets_set("made", "the-new-value")
print(os.environ["T"], "became", "the-new-value", os.environ["PIN"])
result = [os.environ["T"], "the-new-value"]
"""
BOTH = (
    "runtime: python\ntrigger: {manual: true}\npermissions:\n  dicode: {secrets_write: true}\n"
    "  env: [{name: T, secret: made}, {name: PIN, secret: pin}]\n"
)


async def test_a_secret_that_changes_in_a_run_is_hidden_as_it_was_and_as_it_is(live: Live) -> None:
    await live.call("secrets_set", name="made", value=VALUE)
    await live.call("secrets_set", name="pin", value="123")
    live.write("rotates", ROTATES, BOTH)
    await live.sync()
    run = await live.run("rotates")
    assert run["return_value"] == ["[secret made]", "[secret made]"]
    lines = (await live.call("get_logs", run_id=run["run_id"]))["lines"]
    told = [(line["level"], line["message"]) for line in lines]
    assert told[0][0] == "warn"
    assert told[0][1].startswith("[dicode] pin: shorter than 4 characters")
    assert told[1] == ("info", "[secret made] became [secret made] 123")
    again = await live.run("rotates")
    assert again["return_value"] == ["[secret made]", "[secret made]"]


ASKS = """
from dicode_sdk import dicode, input
dicode.secrets_set(input["key"], "from-the-prerequisite")
"""


async def test_what_is_missing_starts_its_task_and_the_next_run_has_it(live: Live) -> None:
    env = "permissions: {env: [{name: T, secret: made, if_missing: {task: asks}}]}\n"
    live.write("uses", USES, f"runtime: python\ntrigger: {{manual: true}}\n{env}")
    live.write("asks", ASKS, WRITES.format("python"))
    await live.sync()
    first = await live.run("uses")
    assert (first["status"], first["reason"]) == ("failure", "secret_missing")
    (asks,) = (await live.call("get_runs", task="asks"))["runs"]
    assert (
        f"its if_missing task 'asks' was started: run {asks['run_id']}"
        in (first["error"]["message"])
    )
    await live.call("get_run", run_id=asks["run_id"], wait_seconds=30)
    assert (await live.run("uses"))["return_value"] == len("from-the-prerequisite")


PROVIDES = """
from dicode_sdk import input, output
output({{name: {value!r} for name in input["names"]}}, secret=True)
print({value!r})
result = {value!r}
"""
PROVIDER = "runtime: python\ntrigger: {manual: true}\nprovider: {cache_ttl: 60s}\n"
ASKED = "permissions: {env: [{name: T, from: 'task:vault'}, {name: U, from: 'task:vault'}]}\n"


async def test_a_provider_task_gives_values_that_nobody_sees(live: Live) -> None:
    live.write("vault", PROVIDES.format(value=VALUE), PROVIDER)
    live.write(
        "uses",
        "import os\nprint(os.environ['T'])\nresult = [len(os.environ['U']), os.environ['T']]\n",
        f"runtime: python\ntrigger: {{manual: true}}\n{ASKED}",
    )
    await live.sync()
    runs = [await live.run("uses"), await live.run("uses")]
    assert [run["return_value"][0] for run in runs] == [len(VALUE)] * 2
    asked = (await live.call("get_runs", task="vault"))["runs"]
    assert len(asked) == 1, "the second run had it from the first"
    shown = [await live.call("get_run", run_id=run["run_id"]) for run in [*asked, *runs]]
    shown += [await live.call("get_logs", run_id=run["run_id"]) for run in [*asked, *runs]]
    assert VALUE not in str(shown)


async def test_a_provider_of_the_chain_gives_what_the_store_does_not_have(serve: Serve) -> None:
    chain = SecretsConfig(
        providers=(SecretProvider(type="local"), SecretProvider(type="task", task="vault"))
    )
    async with serve(secrets=chain) as live:
        live.write("vault", PROVIDES.format(value=VALUE), PROVIDER)
        live.write("uses", USES, NEEDS)
        await live.sync()
        assert (await live.run("uses"))["return_value"] == len(VALUE)
        (line,) = (await live.call("secrets_list"))["elsewhere"]
        assert (line["name"], line["provider"]) == ("made", "task:vault")
        await live.call("secrets_set", name="made", value="of-the-store")
        assert (await live.run("uses"))["return_value"] == len("of-the-store")


async def test_a_failing_provider_is_named_with_its_kind_of_failure(live: Live) -> None:
    live.write("vault", "raise SystemExit(3)\n", PROVIDER)
    live.write("uses", USES, f"runtime: python\ntrigger: {{manual: true}}\n{ASKED}")
    await live.sync()
    run = await live.run("uses")
    assert run["reason"] == "secret_missing"
    assert run["error"]["code"] == "provider_unavailable"


async def test_a_run_that_waits_for_its_provider_is_cancelled_at_once(serve: Serve) -> None:
    async with serve(slots=1) as live:
        live.write("vault", "import time\ntime.sleep(60)\n", PROVIDER)
        live.write("uses", USES, f"runtime: python\ntrigger: {{manual: true}}\n{ASKED}")
        live.write("other", "result = 1\n")
        await live.sync()
        run = await live.call("run_task", id="uses", wait_seconds=0)
        asked: list[dict[str, Any]] = []

        async def running() -> bool:
            asked[:] = (await live.call("get_runs", task="vault", status="running"))["runs"]
            return bool(asked)

        while not await running():
            pass
        await live.call("cancel_run", run_id=run["run_id"])
        ended = await live.call("get_run", run_id=run["run_id"], wait_seconds=20)
        assert (ended["status"], ended["reason"]) == ("cancelled", "cancelled")
        await live.call("cancel_run", run_id=asked[0]["run_id"])
        assert (await live.run("other"))["return_value"] == 1, "its slot came back"


async def test_a_webhook_s_stored_secret_is_live_without_a_restart(live: Live) -> None:
    hook = "runtime: python\ntrigger: {webhook: /hooks/x, webhook_secret: {secret: hook}}\n"
    live.write("hooked", "result = 1\n", hook)
    await live.sync()

    async def ready() -> str:
        seen = await live.call("get_task", id="hooked")
        return next(c for c in seen["conditions"] if c["type"] == "Ready").get("message", "")

    async with client(live) as http:
        assert (await http.post("/hooks/x", content=b"")).status_code == 503
        while "dicode secrets set hook" not in await ready():
            pass
        await live.call("secrets_set", name="hook", value=VALUE)
        assert (await http.post("/hooks/x", content=b"")).status_code == 401
        while "dicode secrets set hook" in await ready():
            pass
        assert (await live.call("secrets_list"))["secrets"][0]["used_by"] == ["hooked"]
        gone = await live.call("secrets_delete", name="hook")
        assert gone["breaks"] == ["hooked"]
        assert (await http.post("/hooks/x", content=b"")).status_code == 503


async def test_what_runs_began_with_is_sealed_and_replayed_after_a_restart(serve: Serve) -> None:
    marker = "a-customer's-own-words"
    async with serve() as live:
        live.write("echo", "from dicode_sdk import input, kv\nkv.set('k', input)\nresult = 1\n")
        await live.sync()
        run = await live.run("echo", input=marker)
        shown = [run, await live.call("get_run", run_id=run["run_id"])]
        shown.append(await live.call("get_runs"))
        assert marker not in str(shown), "no surface shows an input"
        data = live.data
    for file in data.glob("state.db*"):
        assert marker.encode() not in file.read_bytes(), file
    async with serve() as live:
        live.write("echo", "from dicode_sdk import input, kv\nresult = input == kv.get('k')\n")
        await live.sync()
        again = await live.call("replay_run", run_id=run["run_id"])
        ended = await live.call("get_run", run_id=again["run_id"], wait_seconds=30)
        assert ended["return_value"] is True

"""Who has no key that holds: one that has ended, the owner himself, his browser, a task's page.

They are held against the same tables as keys are.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from authority import OTHERS, OURS, Authority, authority
from authoritytables import KNOWN, ROUTES, VERB, ask
from keycalls import REFUSALS, Holder, code_of, make_key, over_the_socket, owner
from liveserver import Serve

from dicode_mcp.tools.registry import ADMIN_TOOLSET
from dicode_mcp.tools.server import ALL_TOOLS

pytestmark = pytest.mark.slow

EVERY = ("read", "run", "author", "approve", "secrets", "admin")
PASSPHRASE = "correct horse battery"
ELSEWHERE = {"x-forwarded-for": "203.0.113.9"}
"""As a proxy passes it on: by this alone the server's own process would be a caller."""
WRONG = (401, 429)
"""What a wrong key gets: the second once a hundred of them came from one address."""
KEPT = {tool.name for tool in ALL_TOOLS if tool.toolset == ADMIN_TOOLSET}


@pytest.fixture
async def house(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    async with authority(serve, tmp_path, monkeypatch) as made:
        yield made


def refused(result: Mapping[str, Any]) -> bool:
    return code_of(result) in REFUSALS


# ── Keys that have ended ──


async def test_a_key_that_has_ended_is_nobodys_on_every_tool_and_route(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as live:
        late = await make_key(live, "late", *EVERY)
    with sqlite3.connect(tmp_path / "data" / "state.db") as database:
        database.execute("update bearer_keys set expires_at_ms = 1")
    database.close()
    async with authority(serve, tmp_path, monkeypatch) as house:
        gone = await make_key(house.live, "gone", *EVERY)
        client = house.keys[0].holder.client
        assert (await Holder(client, gone).request("GET", "/api/tasks")).status_code == 200
        await owner(house.live, "keys_revoke", key="gone")
        shown = await owner(house.live, "keys_list")
        states = {key["name"]: key["state"] for key in shown["keys"]}
        assert (states["late"], states["gone"]) == ("expired", "revoked")
        before = await _state(house)
        wrong: list[str] = []
        for name, key in (("expired", late), ("revoked", gone)):
            holder = Holder(client, key)
            for tool, arguments in KNOWN.items():
                given = arguments(OURS, house.runs[OURS])
                answer = await holder.send("tools/call", name=tool, arguments=given)
                if answer.status_code not in WRONG:
                    wrong.append(f"{name}: {tool}: {answer.status_code}")
            for (method, _), asked in ROUTES.items():
                answer = await ask(house, holder, method, asked, OURS)
                if answer.status_code not in WRONG:
                    wrong.append(f"{name}: {method} {asked.path}: {answer.status_code}")
        assert wrong == []
        assert await _state(house) == before


async def _state(house: Authority) -> object:
    runs = [run["run_id"] for run in (await house.live.call("get_runs", limit=500))["runs"]]
    secrets = [secret["name"] for secret in (await house.live.call("secrets_list"))["secrets"]]
    files = sorted(
        (str(path), path.read_bytes())
        for path in house.live.tasks.parent.glob("*/*/*")
        if path.is_file() and "data" not in path.parts
    )
    return runs, secrets, files


# ── The owner ──


@pytest.mark.parametrize("client", ["mcp", "cli"])
async def test_the_owner_at_his_socket_has_every_tool_but_what_is_kept_from_agents(
    house: Authority, client: str
) -> None:
    preamble = {"client": client}
    kept = KEPT if client == "mcp" else set[str]()
    listed = await over_the_socket(house.live, "tools/list", {}, preamble)
    assert {tool["name"] for tool in listed["tools"]} == set(KNOWN) - kept
    wrong: list[str] = []
    for name, arguments in KNOWN.items():
        for task_id in (OURS, OTHERS):
            params = {"name": name, "arguments": arguments(task_id, house.runs[task_id])}
            got = (await over_the_socket(house.live, "tools/call", params, preamble))[
                "structuredContent"
            ]
            if refused(got) is not (name in kept):
                wrong.append(f"{name} on {task_id}: {json.dumps(got)[:200]}")
    assert wrong == []


async def test_a_read_only_socket_reads_and_nothing_else(house: Authority) -> None:
    preamble = {"client": "mcp", "read_only": True}
    reading = {name for name, verb in VERB.items() if verb == "read"}
    listed = await over_the_socket(house.live, "tools/list", {}, preamble)
    assert {tool["name"] for tool in listed["tools"]} == reading
    before = await _state(house)
    for name, arguments in KNOWN.items():
        params = {"name": name, "arguments": arguments(OURS, house.runs[OURS])}
        got = (await over_the_socket(house.live, "tools/call", params, preamble))[
            "structuredContent"
        ]
        assert refused(got) is (name not in reading), (name, got)
    assert await _state(house) == before


# ── A browser, and a task's page ──


async def _log_in(house: Authority) -> Holder:
    """Give a browser of the owner's that comes from elsewhere, logged in."""
    set_ = await owner(house.live, "passphrase_set", passphrase=PASSPHRASE)
    assert set_["set"]
    client = house.keys[0].holder.client
    form = (await client.get("/login", headers=ELSEWHERE)).text
    token = re.search(r'name="token" value="([0-9a-f]+)"', form)
    assert token
    answer = await client.post(
        "/login",
        data={"passphrase": PASSPHRASE, "token": token[1], "next": "/"},
        headers={**ELSEWHERE, "origin": str(client.base_url).rstrip("/")},
    )
    assert answer.status_code == 303
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    client.cookies.clear()
    holder = Holder(client, None)
    holder.headers = {**ELSEWHERE, "cookie": cookies, "origin": str(client.base_url).rstrip("/")}
    return holder


async def test_a_session_opens_the_pages_and_none_of_the_rest(house: Authority) -> None:
    browser = await _log_in(house)
    wrong: list[str] = []
    for (method, path), asked in ROUTES.items():
        for task_id in (OURS, OTHERS):
            answer = await ask(house, browser, method, asked, task_id)
            opens = asked.verb is None or asked.page or (method, path) == _HOOK_PAGE
            # The forms want their token besides: the session alone is not enough to send one.
            form = asked.owner and method == "POST"
            passes = answer.status_code != 401 if form else answer.status_code not in (401, 403)
            if passes is not opens:
                wrong.append(f"{method} {asked.path} {task_id}: {answer.status_code}")
    assert wrong == []
    for tool in ("list_tasks", "run_task"):
        answer = await browser.send("tools/call", name=tool, arguments={})
        assert answer.status_code == 401
    assert (await browser.request("GET", "/api/events")).status_code == 401


_HOOK_PAGE = ("GET", "/hooks/{path:path}")


async def test_a_pages_key_is_for_its_own_webhook_alone(house: Authority) -> None:
    browser = await _log_in(house)
    page = (await browser.request("GET", "/hooks/alpha", headers={"accept": "text/html"})).text
    key = page.partition('name="dicode-page" content="')[2].partition('"')[0]
    assert "." in key
    holder = Holder(browser.client, None)
    holder.headers = {**ELSEWHERE, "origin": "null", "x-dicode-page": key}
    before = await _state(house)
    wrong: list[str] = []
    for (method, path), asked in ROUTES.items():
        for task_id in (OURS, OTHERS):
            if path.startswith("/hooks/") and task_id == OURS:
                continue
            answer = await ask(house, holder, method, asked, task_id)
            if answer.status_code != 403:
                wrong.append(f"{method} {asked.path} {task_id}: {answer.status_code}")
    assert wrong == []
    assert (await holder.send("tools/list")).status_code == 403
    # The same key without the page's origin is no proof of anything.
    holder.headers = {**ELSEWHERE, "x-dicode-page": key}
    for method, path in (("GET", "/api/tasks"), ("POST", "/hooks/alpha"), ("POST", "/mcp")):
        assert (await holder.request(method, path, json={})).status_code == 401, path
    assert await _state(house) == before
    holder.headers = {**ELSEWHERE, "origin": "null", "x-dicode-page": key}
    ran = await holder.request("POST", "/hooks/alpha", json={})
    assert (ran.status_code, ran.json()) == (200, "value")

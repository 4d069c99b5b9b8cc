"""Every tool and every route against every kind of key: who may, does; who may not, learns nothing.

What is expected comes from the verb that each tool declares, and from the tables here for what it
acts on. A tool or a route that is in no table fails the first test of its kind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from authority import OTHERS, OURS, Authority, Key, authority
from authoritytables import (
    ELSEWHERE,
    KNOWN,
    OF_OWNER,
    ON_A_TASK,
    ON_ALL,
    ROUTES,
    VERB,
    WHOLE,
    Asked,
    ask,
)
from keycalls import META, REFUSALS, Holder, code_of, over_the_socket
from liveserver import Serve
from starlette.routing import Route

from dicode_mcp.service.scopes import VERBS
from dicode_mcp.tools.registry import ADMIN_TOOLSET
from dicode_mcp.tools.server import ALL_TOOLS

pytestmark = pytest.mark.slow


def test_every_tool_declares_what_it_takes_and_is_in_a_table() -> None:
    assert {tool.name for tool in ALL_TOOLS} == set(KNOWN)
    kept = {tool.name for tool in ALL_TOOLS if tool.toolset == ADMIN_TOOLSET}
    assert kept == {"keys_create", "keys_list", "keys_revoke", "secrets_rotate", "passphrase_set"}
    assert set(VERB.values()) <= set(VERBS)
    assert {tool.name for tool in ALL_TOOLS if tool.of_owner} == OF_OWNER


@pytest.fixture
async def house(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    async with authority(serve, tmp_path, monkeypatch) as made:
        yield made


def refused(result: Mapping[str, Any]) -> bool:
    return code_of(result) in REFUSALS


async def test_a_key_is_offered_the_tools_of_its_verbs_and_no_other(house: Authority) -> None:
    for key in house.keys:
        expected = {n for n, verb in VERB.items() if key.has(verb) and n not in OF_OWNER}
        assert await key.holder.tools() == expected, key.name


async def test_every_key_on_every_tool_and_task(house: Authority) -> None:
    wrong: list[str] = []
    for key in house.keys:
        for name, arguments in KNOWN.items():
            for task_id in (OURS, OTHERS):
                expected = _may(key, name, task_id)
                run_id = house.runs[task_id]
                got = await key.holder.call(name, **arguments(task_id, run_id))
                if refused(got) is expected:
                    wrong.append(f"{key.name}: {name} on {task_id}: {json.dumps(got)[:200]}")
                wrong += _leaks(house, key, name, task_id, got)
    assert wrong == []


def _may(key: Key, tool: str, task_id: str) -> bool:
    verb = VERB[tool]
    if tool in OF_OWNER:
        return False
    if tool in ON_A_TASK:
        return key.has_on(verb, task_id)
    if tool in ON_ALL and tool not in WHOLE:
        return key.has(verb) and not key.narrow
    return key.has(verb)


def _leaks(
    house: Authority, key: Key, tool: str, task_id: str, got: Mapping[str, Any]
) -> list[str]:
    """Find what an answer tells of the other source's task to a key that is not for it.

    Where the call names that task itself its name comes back, and nothing else may.
    """
    if not key.narrow:
        return []
    text = json.dumps(got)
    words = house.words_of_others() if task_id == OURS else (house.runs[OTHERS], "a line", "value")
    if task_id == OTHERS and tool in ON_A_TASK:
        asked = json.dumps(ON_A_TASK[tool](OTHERS, house.runs[OTHERS]))
        words = tuple(word for word in words if word not in asked)
    return [f"{key.name}: {tool} tells {word!r}: {text[:300]}" for word in words if word in text]


async def test_nothing_is_counted_that_a_key_may_not_see(house: Authority) -> None:
    holder = house.key("read of alpha").holder
    status = await holder.call("get_status")
    assert (status["tasks"]["total"], status["sources"]) == (1, 1)
    assert status["runs_last_24h"]["success"] == 1
    assert not {"slots", "asking", "data_dir", "notifications"} & set(status)
    stats = await holder.call("get_stats")
    assert stats["totals"]["runs"] == 1
    records = (await holder.request("GET", "/api/tasks/runs")).json()
    assert (records["total"], len(records["runs"])) == (1, 1)
    first = await holder.call("get_runs", limit=1)
    assert "next_cursor" not in first
    [source] = (await holder.call("list_sources"))["sources"]
    assert (source["name"], source["tasks"]) == ("alpha", 1)
    for wrong in ("list_tasks", "sync_source"):
        error = (await house.key("run of alpha").holder.call(wrong, source="beto"))["error"]
        assert "beta" not in json.dumps(error)


async def test_resources_prompts_and_completions_are_of_what_a_key_may_see(
    house: Authority,
) -> None:
    for key in house.keys:
        if not key.narrow:
            continue
        resources = await key.holder.mcp("resources/list")
        assert "beta" not in json.dumps(resources)
        templates = (await key.holder.mcp("resources/templates/list"))["resourceTemplates"]
        files = any("files" in template["uriTemplate"] for template in templates)
        assert files is key.has("author")
        for name in ("id",):
            ref = {"type": "ref/resource", "uri": "dicode://tasks/{id}"}
            found = await key.holder.mcp(
                "completion/complete", ref=ref, argument={"name": name, "value": ""}
            )
            values = found["completion"]["values"]
            assert values == ([OURS] if key.has("read") else [])
        runs = {"type": "ref/resource", "uri": "dicode://runs/{id}"}
        found = await key.holder.mcp(
            "completion/complete", ref=runs, argument={"name": "id", "value": ""}
        )
        assert house.runs[OTHERS] not in found["completion"]["values"]


@pytest.mark.parametrize("client", ["mcp", "cli"])
async def test_a_narrowed_socket_is_held_to_the_same(house: Authority, client: str) -> None:
    preamble = {"client": client, "tasks": "alpha/*"}
    wrong: list[str] = []
    for name, arguments in ON_A_TASK.items():
        if name.startswith("secrets_") or name == "approve_task":
            continue
        for task_id in (OURS, OTHERS):
            params = {"name": name, "arguments": arguments(task_id, house.runs[task_id])}
            result = await over_the_socket(house.live, "tools/call", params, preamble)
            if refused(result["structuredContent"]) is (task_id == OURS):
                wrong.append(f"{name} on {task_id}: {json.dumps(result)[:200]}")
    assert wrong == []


# ── Routes ──


def _declared(house: Authority) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for route in house.app.routes:
        assert isinstance(route, Route)
        for method in (route.methods or {"GET", "POST"}) - {"HEAD"}:
            found.add((method, route.path))
    return found


async def test_every_route_is_in_a_table(house: Authority) -> None:
    unknown = {
        (method, path)
        for method, path in _declared(house)
        if (method, path) not in ROUTES and path not in ELSEWHERE
    }
    assert unknown == set()


async def test_every_key_on_every_route_and_task(house: Authority) -> None:
    wrong: list[str] = []
    for key in house.keys:
        for (method, _), asked in ROUTES.items():
            for task_id in (OURS, OTHERS):
                answer = await ask(house, key.holder, method, asked, task_id)
                denied = answer.status_code in (401, 403, 404)
                if denied is _passes(key, asked, task_id):
                    wrong.append(
                        f"{key.name}: {method} {asked.path} {task_id}: {answer.text[:150]}"
                    )
                telling = not asked.task or task_id == OURS
                if key.narrow and telling:
                    wrong += [
                        f"{key.name}: {method} {asked.path} tells {word!r}"
                        for word in house.words_of_others()
                        if word in answer.text
                    ]
    assert wrong == []


@pytest.mark.parametrize("who", ["nobody", "a wrong key"])
async def test_without_a_right_key_no_route_tells_or_does_anything(
    house: Authority, who: str
) -> None:
    key = None if who == "nobody" else "dck_abcdefghij_" + "A" * 43
    holder = Holder(house.keys[0].holder.client, key)
    before = await house.live.call("get_runs", limit=500)
    for (method, _), asked in ROUTES.items():
        # As a proxy passes it on: the owner's own process would pass without a key.
        answer = await ask(
            house, holder, method, asked, OURS, headers={"x-forwarded-for": "203.0.113.9"}
        )
        expected = 200 if asked.verb is None and key is None else 401
        assert answer.status_code == expected, (method, asked.path, answer.text)
    assert await house.live.call("get_runs", limit=500) == before


async def test_events_are_of_what_a_key_may_see(house: Authority) -> None:
    holder = house.key("run of alpha").holder
    async with (
        asyncio.timeout(60),
        holder.client.stream(
            "GET", "/api/events", headers={**holder.headers, "accept": "text/event-stream"}
        ) as answer,
    ):
        lines = answer.aiter_lines()
        while "event: open" not in await anext(lines):
            pass
        await house.live.run(OTHERS)
        await house.live.call("sync_source", source="beta")
        ours = await house.live.run(OURS)
        heard: list[str] = []
        while not any(ours["run_id"] in line and "success" in line for line in heard):
            heard.append(await anext(lines))
    assert "beta" not in "\n".join(heard)
    followed = await holder.request("GET", f"/api/events?run={house.runs[OTHERS]}")
    assert followed.status_code == 404
    assert (await house.key("secrets").holder.request("GET", "/api/events")).status_code == 403


async def test_a_listen_stream_tells_of_what_a_key_may_see(house: Authority) -> None:
    key = house.key("read of alpha")
    watched = [f"dicode://runs/{house.runs[task]}" for task in (OTHERS, OURS)]
    watched += ["dicode://tasks/beta%2Ftwo", "dicode://tasks/alpha%2Fone"]
    listening = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "subscriptions/listen",
        "params": {
            "notifications": {"resourcesListChanged": True, "resourceSubscriptions": watched},
            "_meta": META,
        },
    }
    headers = {
        **key.holder.headers,
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "subscriptions/listen",
    }
    heard: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(60),
        key.holder.client.stream("POST", "/mcp", json=listening, headers=headers) as answer,
    ):
        lines = answer.aiter_lines()

        async def hear(method: str) -> dict[str, Any]:
            while not heard or heard[-1]["method"] != method:
                line = await anext(lines)
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: ")))
            return heard.pop()

        told = await hear("notifications/subscriptions/acknowledged")
        assert "beta" not in json.dumps(told)
        assert house.runs[OTHERS] not in json.dumps(told)
        await house.live.run(OTHERS)
        await house.live.call("set_task_enabled", id=OTHERS, enabled=False)
        await house.live.call("set_task_enabled", id=OURS, enabled=False)
        await hear("notifications/resources/list_changed")
        # What only others see was changed before, and would have come before.
        assert "beta" not in json.dumps(heard)
        assert not any(said["method"].endswith("list_changed") for said in heard)


def _passes(key: Key, asked: Asked, task_id: str) -> bool:
    if asked.verb is None:
        return True
    if asked.owner:
        return False
    if asked.task:
        return key.has_on(asked.verb, task_id)
    return key.has(asked.verb) and not (asked.whole and key.narrow)

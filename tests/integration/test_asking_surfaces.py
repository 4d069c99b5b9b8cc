"""Answering a run on the other surfaces: the owner's page and the tasks extension."""

from __future__ import annotations

import re
import sqlite3
from html import unescape
from pathlib import Path
from typing import Any

import httpx
from liveserver import Live, Serve

from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.tools.jobs import EXTENSION

SCRIPT = """
from dicode_sdk import dicode
result = dicode.ask({"type": "object", "properties": {
    "deploy": {"type": "boolean", "title": "Deploy <now>?"},
    "where": {"type": "string", "enum": ["eu", "us"], "default": "eu"},
    "count": {"type": "integer", "minimum": 1, "maximum": 9},
    "note": {"type": "string"},
}, "required": ["deploy", "count"]}, "Deploy <b>1.4</b>?\\x1b[31m\\u202e")
"""


async def asked(live: Live) -> str:
    live.write("deploy", SCRIPT)
    await live.sync()
    run = await live.run("deploy")
    assert run["status"] == "waiting", run
    return run["run_id"]


def fields(page: httpx.Response) -> dict[str, str]:
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text)
    return {name: unescape(value) for name, value in hidden}


def browser(live: Live) -> httpx.AsyncClient:
    assert live.server.url is not None
    return httpx.AsyncClient(
        base_url=live.server.url,
        trust_env=False,
        timeout=DEADLINE_S,
        headers={"accept": "text/html", "origin": live.server.url},
    )


async def test_the_owner_answers_on_the_page_and_a_form_counts_once(serve: Serve) -> None:
    async with serve(http=True) as live:
        run_id = await asked(live)
        async with browser(live) as client:
            run_page = await client.get(f"/runs/{run_id}")
            assert f'href="/runs/{run_id}/answer"' in run_page.text
            page = await client.get(f"/runs/{run_id}/answer")
            assert page.status_code == 200
            assert page.headers["referrer-policy"] == "same-origin"
            assert "script" not in page.text
            assert "Deploy &lt;b&gt;1.4&lt;/b&gt;?" in page.text
            assert "\u202e" not in page.text
            typed = {"deploy": "true", "where": "us", "count": "99", "note": "a\r\nb"}
            wrong = await client.post(page.url, data={**fields(page), **typed})
            assert wrong.status_code == 422
            assert "count must be at most 9" in wrong.text
            assert 'value="us" selected' in wrong.text
            stale = await client.post(page.url, data={**fields(page), **typed, "count": "3"})
            assert stale.status_code == 403
            good = await client.post(page.url, data={**fields(stale), **typed, "count": "3"})
            assert (good.status_code, good.headers["location"]) == (303, f"/runs/{run_id}")
            again = await client.post(page.url, data={**fields(wrong), **typed, "count": "3"})
            assert again.status_code == 409, again.text
            assert "answered already, by local via http" in unescape(again.text)
        ended = await live.call("get_run", run_id=run_id, wait_seconds=20)
        assert ended["return_value"] == {"deploy": True, "where": "us", "count": 3, "note": "a\nb"}
        async with browser(live) as client:
            told = unescape((await client.get(f"/runs/{run_id}")).text)
            assert "deploy: yes" in told
            assert "local via http" in told


async def test_a_form_without_its_token_or_from_another_site_changes_nothing(serve: Serve) -> None:
    async with serve(http=True) as live:
        run_id = await asked(live)
        answer = {":verdict": "answer", "deploy": "true", "count": "1"}
        async with browser(live) as client:
            path = f"/runs/{run_id}/answer"
            page = await client.get(path)
            bare = await client.post(path, data={**answer, ":question": "1"})
            other = await client.post(
                path, data={**fields(page), **answer}, headers={"origin": "http://evil.example"}
            )
            null = await client.post(
                path, data={**fields(page), **answer}, headers={"origin": "null"}
            )
            crossed = await client.post(
                path, data={**fields(page), **answer}, headers={"sec-fetch-site": "cross-site"}
            )
            as_json = await client.post(path, json={**fields(page), **answer})
            statuses = [r.status_code for r in (bare, other, null, crossed, as_json)]
            assert statuses == [403, 403, 403, 403, 400], statuses
        assert (await live.call("get_run", run_id=run_id))["status"] == "waiting"


async def test_the_owner_declines_on_the_page_without_filling_anything_in(serve: Serve) -> None:
    async with serve(http=True) as live:
        run_id = await asked(live)
        async with browser(live) as client:
            page = await client.get(f"/runs/{run_id}/answer")
            said = await client.post(page.url, data={**fields(page), ":verdict": "decline"})
            assert said.status_code == 303
            ended = await live.call("get_run", run_id=run_id, wait_seconds=20)
            assert (ended["status"], ended["reason"]) == ("cancelled", "declined")
            gone = await client.get(f"/runs/{run_id}/answer")
            assert gone.status_code == 409


async def test_a_webhook_whose_run_asks_is_answered_at_once_with_the_runs_id(
    serve: Serve,
) -> None:
    async with serve(http=True) as live:
        live.write("hook", SCRIPT, "runtime: python\ntrigger: {webhook: /hooks/ask}\n")
        await live.sync()
        async with browser(live) as client:
            said = await client.post("/hooks/ask", json={})
        assert said.status_code == 202, said.text
        run = await live.call("get_run", run_id=said.json()["runId"])
        assert run["status"] == "waiting"


async def test_a_job_asks_for_input_and_its_answer_lets_it_go_on(serve: Serve) -> None:
    able: dict[str, Any] = {"elicitation": {"form": {}}, "extensions": {EXTENSION: {}}}
    unable: dict[str, Any] = {"extensions": {EXTENSION: {}}}

    async with serve() as live:

        async def send(method: str, params: dict[str, Any], caps: dict[str, Any]) -> Any:
            meta = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": caps,
            }
            return (await live.request(method, {**params, "_meta": meta}))["result"]

        live.write("deploy", SCRIPT)
        await live.sync()
        call = {"name": "run_task", "arguments": {"id": "deploy"}}
        job = await send("tools/call", call, able)
        assert job["resultType"] == "task"
        place = {"taskId": job["taskId"]}
        while (shown := await send("tasks/get", place, able))["status"] == "working":
            pass
        assert shown["status"] == "input_required"
        assert (await send("tasks/get", place, unable))["status"] == "working"
        ((name, request),) = shown["inputRequests"].items()
        assert request["params"]["message"].startswith("Task deploy asks: Deploy")
        reply = {"action": "accept", "content": {"deploy": False, "count": 1}}
        await send("tasks/update", {**place, "inputResponses": {name: reply}}, able)
        while (shown := await send("tasks/get", place, able))["status"] != "completed":
            assert shown["status"] == "working"
        assert shown["result"]["structuredContent"]["return_value"]["count"] == 1


async def test_every_answer_is_in_the_audit_log_without_its_value(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve() as live:
        run_id = await asked(live)
        answer = {"deploy": True, "count": 1, "note": "hunter2"}
        await live.call("answer_run", run_id=run_id, answer=answer, wait_seconds=20)
    with sqlite3.connect(tmp_path / "data" / "state.db") as state:
        rows = state.execute(
            "SELECT actor, surface, target, outcome, detail FROM audit WHERE action = 'answer_run'"
        ).fetchall()
    assert [row[:4] for row in rows] == [("local", "mcp", run_id, "ok")]
    assert b"hunter2" not in rows[0][4]

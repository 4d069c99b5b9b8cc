"""A session on a whole server: pages, a task's page that wants one, and what is written down."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

import httpx
from liveserver import Live, Serve

from dicode_mcp.cli.client import Client

CLOSED = "runtime: python\ntrigger: {webhook: /hooks/closed, auth: true}\n"
ASKS = "runtime: python\ntrigger: {manual: true}\n"
PAGE = "<!DOCTYPE html><html><head></head><body>closed</body></html>"
PASSPHRASE = "correct horse battery"
BROWSER = {"accept": "text/html"}


def call_as_cli(live: Live, tool: str, **arguments: Any) -> dict[str, Any]:
    with Client.connect(str(live.data / "dicode.sock")) as client:
        return client.call(tool, arguments)


async def logged_in(client: httpx.AsyncClient, to: str) -> httpx.Response:
    form = await client.get("/login")
    token = re.search(r'name="token" value="([0-9a-f]+)"', form.text)
    assert token
    data = {"passphrase": PASSPHRASE, "token": token[1], "next": to}
    origin = {"origin": str(client.base_url).rstrip("/")}
    return await client.post("/login", data=data, headers=origin)


async def test_a_session_opens_a_page_whose_calls_are_its_own_until_it_ends(serve: Serve) -> None:
    async with serve(http=True, environ=dict(os.environ)) as live:
        live.write("closed", "result = {'by': 'page'}\n", CLOSED)
        (live.tasks / "closed" / "index.html").write_text(PAGE)
        await live.sync()
        set_ = await asyncio.to_thread(call_as_cli, live, "passphrase_set", passphrase=PASSPHRASE)
        assert set_["set"]
        url = live.server.url or ""
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            first = await client.get("/hooks/closed", headers=BROWSER)
            assert first.status_code == 303
            assert first.headers["location"].startswith("/login?next=%2Fhooks%2Fclosed")
            answer = await logged_in(client, "/hooks/closed")
            assert answer.headers["location"] == "/hooks/closed"
            page = await client.get("/hooks/closed", headers=BROWSER)
            assert page.status_code == 200
            key = page.text.partition('name="dicode-page" content="')[2].partition('"')[0]
            assert "." in key
            # A page's origin is nobody's: its calls bring no cookie, only the key.
            async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as caged:
                called = {"origin": "null", "x-dicode-page": key}
                good = await caged.post("/hooks/closed", json={}, headers=called)
                assert (good.status_code, good.json()) == (200, {"by": "page"})
                run_id = good.headers["x-run-id"]
                seen = await caged.get(f"/hooks/closed/.dicode/runs/{run_id}", headers=called)
                assert seen.status_code == 200
                bare = {"origin": "null", "x-dicode-page": key.partition(".")[0]}
                assert (await caged.post("/hooks/closed", headers=bare)).status_code == 403
                other = await caged.get("/runs", headers=called)
                assert other.status_code == 403
                await asyncio.to_thread(
                    call_as_cli, live, "passphrase_set", passphrase="another good one"
                )
                late = await caged.post("/hooks/closed", json={}, headers=called)
                assert late.status_code == 401
            assert (await client.get("/hooks/closed")).status_code == 401
        runs = (await live.call("get_runs", task="closed"))["runs"]
        assert len(runs) == 1
        log = await live.call("get_audit", verify=True)
        assert log["intact"]
        entries = (await live.call("get_audit", limit=100))["entries"]
        told = [(e["actor"], e["action"], e["outcome"]) for e in entries]
        assert told.count(("local", "passphrase_set", "ok")) == 2
        assert any(actor.startswith("peer:") and action == "login" for actor, action, _ in told)
        assert any(action == "refused_call" for _, action, _ in told)
        assert PASSPHRASE not in str(entries)


async def test_an_agent_cannot_set_the_passphrase(serve: Serve) -> None:
    async with serve() as live:
        answer = await live.call("passphrase_set", passphrase=PASSPHRASE)
        assert answer["error"]["code"] == "forbidden"
        (entry,) = (await live.call("get_audit", action="refused_call"))["entries"]
        assert (entry["target"], entry["outcome"]) == ("passphrase_set", "forbidden")


async def test_what_a_task_is_refused_is_written_down(serve: Serve) -> None:
    async with serve() as live:
        script = (
            "try:\n    dicode.run_task('other')\nexcept Exception as error:\n    print(error)\n"
        )
        live.write("nosy", script)
        live.write("other", "result = 1\n")
        await live.sync()
        await live.run("nosy")
        (entry,) = (await live.call("get_audit", actor="task:nosy"))["entries"]
        assert (entry["action"], entry["target"]) == ("refused_call", "run_task")

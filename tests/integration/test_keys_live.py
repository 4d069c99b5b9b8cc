"""Keys through the whole server: made at a terminal, used over HTTP, ended at once."""

from __future__ import annotations

import sqlite3
from typing import Any, cast

import pytest
from keycalls import Holder, calling, code_of, make_key, over_the_socket, owner
from liveserver import Live, Serve

from dicode_mcp.config import ServerConfig
from dicode_mcp.errors import Code, DicodeError

OK = "result = 'done'\n"
HOOK = "runtime: python\ntrigger: {webhook: /hooks/closed, auth: true}\n"
AGAIN = """\
runtime: python
trigger: {manual: true}
retry: {attempts: 3, backoff: 30s, max_backoff: 30s}
"""


def the_only(group: Any) -> DicodeError:
    while isinstance(group, BaseExceptionGroup):
        group = cast("Any", group).exceptions[0]
    assert isinstance(group, DicodeError)
    return group


async def two_tasks(live: Live) -> None:
    live.write("one", OK)
    live.write("two", OK)
    await live.sync()


async def test_a_key_runs_what_it_is_for_and_sees_nothing_else(serve: Serve) -> None:
    async with serve(http=True) as live, calling(live) as client:
        await two_tasks(live)
        holder = Holder(client, await make_key(live, "ci", "run:one"))
        run = await holder.call("run_task", id="one", wait_seconds=30)
        assert (run["status"], run["return_value"]) == ("success", "done")
        assert code_of(await holder.call("run_task", id="two")) == "task_not_found"
        listed = await holder.call("list_tasks")
        assert [task["id"] for task in listed["tasks"]] == ["one"]
        assert code_of(await holder.call("set_task_enabled", id="one", enabled=False)) == (
            "forbidden"
        )
        assert "set_task_enabled" not in await holder.tools()
        api = await holder.request("GET", "/api/tasks")
        assert [task["id"] for task in api.json()["tasks"]] == ["one"]


async def test_keys_are_the_owners_business_at_a_terminal_and_no_agents(serve: Serve) -> None:
    names = {"keys_create", "keys_list", "keys_revoke"}
    async with serve(http=True) as live, calling(live) as client:
        for preamble, offered in (({"client": "mcp"}, False), ({"client": "cli"}, True)):
            found = await over_the_socket(live, "tools/list", {}, preamble)
            assert names.issubset({tool["name"] for tool in found["tools"]}) is offered
            assert names.isdisjoint({tool["name"] for tool in found["tools"]}) is not offered
        refused = await live.call("keys_create", name="mine", scopes=["admin"])
        assert code_of(refused) == "forbidden"
        assert "terminal" in refused["error"]["hint"]
        every = Holder(
            client, await make_key(live, "all", "read", "run", "author", "approve", "secrets")
        )
        assert names.isdisjoint(await every.tools())
        assert code_of(await every.call("keys_create", name="x", scopes=["read"])) == "forbidden"
        admin = Holder(client, await make_key(live, "boss", "admin", "read"))
        assert names <= await admin.tools()
        assert "key" in await admin.call("keys_create", name="lesser", scopes=["read"])
        more = await admin.call("keys_create", name="greater", scopes=["run"])
        assert code_of(more) == "forbidden"
        shown = await admin.call("keys_list")
        assert {key["name"] for key in shown["keys"]} == {"all", "boss", "lesser"}
        assert "dck_" not in str(shown)


async def test_a_key_is_nowhere_on_the_servers_disk_and_still_right_after_a_restart(
    serve: Serve,
) -> None:
    async with serve(http=True) as live, calling(live) as client:
        key = await make_key(live, "ci", "read")
        assert (await Holder(client, key).request("GET", "/api/tasks")).status_code == 200
        await client.get("/api/tasks", headers={"authorization": f"Bearer {key[:-1]}"})
    for file in (live.data).rglob("*"):
        if file.is_file():
            assert key.encode() not in file.read_bytes(), file
            assert key[:-1].encode() not in file.read_bytes(), file
    async with serve(http=True) as live, calling(live) as client:
        assert (await Holder(client, key).request("GET", "/api/tasks")).status_code == 200
        await owner(live, "keys_revoke", key="ci")
    async with serve(http=True) as live, calling(live) as client:
        assert (await Holder(client, key).request("GET", "/api/tasks")).status_code == 401


# ── What a key asked for, once it is gone ──


async def test_a_retry_of_a_revoked_keys_run_is_not_started(serve: Serve) -> None:
    async with serve(http=True) as live, calling(live) as client:
        live.write("fails", "raise ValueError('no')\n", AGAIN.replace("30s", "500ms"))
        await live.sync()
        holder = Holder(client, await make_key(live, "ci", "run:fails"))
        run = await holder.call("run_task", id="fails", wait_seconds=0)
        seen = await live.call("get_run", run_id=run["run_id"], wait_seconds=30)
        assert seen["finished_at"]
        await owner(live, "keys_revoke", key="ci")
        following = seen["next_attempt"]["run_id"]
        ended = await live.call("get_run", run_id=following, wait_seconds=30)
        assert (ended["status"], ended["reason"]) == ("skipped", "forbidden")
        assert "replay_run" in ended["error"]["hint"]
        assert "started_at" not in ended


async def test_a_queued_run_of_a_revoked_key_is_not_started_and_others_are(serve: Serve) -> None:
    async with serve(http=True, slots=1) as live, calling(live) as client:
        live.write("long", "import time\ntime.sleep(60)\n")
        live.write("one", OK)
        await live.sync()
        gone = Holder(client, await make_key(live, "gone", "run:one"))
        kept = Holder(client, await make_key(live, "kept", "run:one"))
        blocker = await live.call("run_task", id="long", wait_seconds=0)
        mine = await gone.call("run_task", id="one", wait_seconds=0)
        others = await kept.call("run_task", id="one", wait_seconds=0)
        replayed = await gone.call("replay_run", run_id=mine["run_id"], wait_seconds=0)
        await owner(live, "keys_revoke", key="gone")
        await live.call("cancel_run", run_id=blocker["run_id"])
        for run_id in (mine["run_id"], replayed["run_id"]):
            ended = await live.call("get_run", run_id=run_id, wait_seconds=30)
            assert (ended["status"], ended["reason"]) == ("skipped", "forbidden")
        ended = await live.call("get_run", run_id=others["run_id"], wait_seconds=30)
        assert ended["status"] == "success"


# What comes of its runs: test_rights_live.py.


# ── Webhooks that want a proof ──


async def test_a_webhook_with_auth_takes_a_key_for_its_task_and_nothing_else(serve: Serve) -> None:
    async with serve(http=True) as live, calling(live) as client:
        live.write("closed", "def main(request):\n    return request['headers']\n", HOOK)
        (live.tasks / "closed" / "index.html").write_text("<h1>Closed</h1>")
        await live.sync()
        nobody = Holder(client, None)
        runner = Holder(client, await make_key(live, "runner", "run:closed"))
        reader = Holder(client, await make_key(live, "reader", "read"))
        other = Holder(client, await make_key(live, "other", "run:others"))
        wrong = Holder(client, "dck_abcdefghij_" + "A" * 43)
        statuses = {
            "nobody": (nobody, 401, 401),
            "wrong": (wrong, 401, 401),
            "reader": (reader, 200, 403),
            "runner": (runner, 200, 200),
            "other": (other, 403, 403),
        }
        for who, (holder, page, message) in statuses.items():
            got = (await holder.request("GET", "/hooks/closed")).status_code
            posted = await holder.request("POST", "/hooks/closed", json={})
            assert (who, got, posted.status_code) == (who, page, message), posted.text
            if message == 200:
                assert "authorization" not in posted.json()
                run = await live.call("get_run", run_id=posted.headers["x-run-id"])
                assert run["status"] == "success"
        found = await live.call("get_runs", task="closed")
        assert len(found["runs"]) == 1


# ── Approvals ──


async def test_only_a_key_that_may_approve_approves_without_asking(serve: Serve) -> None:
    async with serve(http=True) as live, calling(live) as client:
        await two_tasks(live)
        author = Holder(client, await make_key(live, "author", "author", "run", "read", "admin"))
        approver = Holder(client, await make_key(live, "human", "approve:one"))
        assert "approve_task" not in await author.tools()
        assert "approve_task" in await approver.tools()
        refused = await author.call("approve_task", id="one", hash="a" * 64)
        assert code_of(refused) == "forbidden"
        nothing = await approver.call("approve_task", id="one", hash="a" * 64)
        assert code_of(nothing) == "conflict"
        assert code_of(await approver.call("approve_task", id="two", hash="a" * 64)) == (
            "task_not_found"
        )


# ── Addresses ──


async def test_an_address_that_others_reach_needs_a_key_and_a_name(serve: Serve) -> None:
    everywhere = ServerConfig(port=0, host="0.0.0.0", allowed_hosts=("dicode.example",))
    with pytest.raises(ExceptionGroup) as caught:
        async with serve(http=True, server_config=everywhere):
            pass
    error = the_only(caught.value)
    assert (error.code, "dicode keys create" in (error.hint or "")) == (Code.INVALID_CONFIG, True)
    async with serve(http=True) as live:
        key = await make_key(live, "ci", "read")
    with pytest.raises(ExceptionGroup) as caught:
        async with serve(http=True, server_config=ServerConfig(port=0, host="0.0.0.0")):
            pass
    error = the_only(caught.value)
    assert "allowed_hosts" in (error.hint or "")
    async with serve(http=True, server_config=everywhere) as live:
        assert live.server.url is not None
        port = live.server.url.rpartition(":")[2]
        async with calling(live) as client:
            path = f"http://127.0.0.1:{port}/api/tasks"
            named = {"host": "dicode.example"}
            assert (await client.get(path, headers=named)).status_code == 401
            assert (await Holder(client, key).request("GET", path, headers=named)).is_success
            evil = await Holder(client, key).request("GET", path, headers={"host": "evil.example"})
            assert evil.status_code == 403


async def test_with_server_auth_nobody_passes_without_a_key(serve: Serve) -> None:
    async with (
        serve(http=True, server_config=ServerConfig(port=0, auth=True)) as live,
        calling(live) as client,
    ):
        refused = await client.get("/api/tasks")
        assert refused.status_code == 401
        assert "server.auth" in refused.json()["detail"]
        # The socket is its user's alone by its mode, and how the first key is made.
        key = await make_key(live, "ci", "read")
        assert (await Holder(client, key).request("GET", "/api/tasks")).status_code == 200


async def test_the_digest_of_a_key_is_all_that_is_stored(serve: Serve) -> None:
    async with serve() as live:
        await make_key(live, "ci", "run:infra/*")
    with sqlite3.connect(live.data / "state.db") as database:
        [(digest, scopes)] = database.execute("select digest, scopes from bearer_keys").fetchall()
    assert (len(digest), scopes) == (64, "run:infra/*")

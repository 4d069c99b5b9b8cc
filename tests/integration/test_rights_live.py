"""What a key asked for, and what comes of that, once the key is gone: each way to a start."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from keycalls import Holder, calling, code_of, make_key, owner
from liveserver import MANUAL, Live, Serve, write_task

from dicode_mcp.config import SourceConfig

OK = "result = 'done'\n"
# Ends once a file is there, so that the key can be revoked while it is on.
HELD = """
import pathlib, time
while not pathlib.Path({go!r}).exists():
    time.sleep(0.02)
{then}
"""


def held(live: Live, then: str) -> tuple[str, str]:
    """Give a script that waits for ``release``, and the manifest that lets it see it."""
    folder = live.data.parent / "gate"
    folder.mkdir(exist_ok=True)
    script = HELD.format(go=str(folder / "go"), then=then)
    return script, f"{MANUAL}permissions: {{fs: [{{path: '{folder}', permission: r}}]%s}}\n"


def release(live: Live) -> None:
    (live.data.parent / "gate" / "go").write_text("")


async def begun(live: Live, run_id: str) -> None:
    while (await live.call("get_run", run_id=run_id))["status"] == "queued":
        pass


async def only_run(live: Live, task: str) -> dict[str, Any]:
    """Wait for the one run of a task, to its end."""
    while not (found := (await live.call("get_runs", task=task))["runs"]):
        pass
    return await live.call("get_run", run_id=found[0]["run_id"], wait_seconds=50)


async def refusals(live: Live) -> list[dict[str, Any]]:
    return (await owner(live, "get_audit", action="start_run"))["entries"]


def is_forbidden(run: dict[str, Any]) -> bool:
    return (run["status"], run.get("reason")) == ("skipped", "forbidden")


@asynccontextmanager
async def holding(live: Live, *scopes: str) -> AsyncGenerator[Holder]:
    async with calling(live) as client:
        yield Holder(client, await make_key(live, "ci", *scopes))


async def test_a_chain_of_a_revoked_keys_run_is_skipped_and_noted(serve: Serve) -> None:
    async with serve(http=True) as live, holding(live, "run:first") as ci:
        script, manifest = held(live, "result = 1")
        live.write("first", script, manifest % "")
        live.write("then", OK, "runtime: python\ntrigger: {chain: {from: first}}\n")
        live.write("last", OK, "runtime: python\ntrigger: {chain: {from: then}}\n")
        await live.sync()
        run = await ci.call("run_task", id="first", wait_seconds=0)
        await begun(live, run["run_id"])
        await owner(live, "keys_revoke", key="ci")
        release(live)
        ended = await live.call("get_run", run_id=run["run_id"], wait_seconds=50)
        assert ended["status"] == "success"
        after = await only_run(live, "then")
        assert is_forbidden(after)
        assert "key:ci" in after["error"]["message"]
        assert (await live.call("get_runs", task="last"))["runs"] == []
        [entry] = await refusals(live)
        assert entry["actor"].startswith("key:ci#")
        assert (entry["target"], entry["outcome"]) == ("then", "forbidden")
        assert entry["detail"]["run_id"] == after["run_id"]
        # The owner may do it himself.
        again = await live.call("replay_run", run_id=after["run_id"], wait_seconds=50)
        assert again["status"] == "success"


async def test_a_chain_needs_the_manifests_right_and_no_scope_of_the_key(serve: Serve) -> None:
    async with serve(http=True) as live, holding(live, "run:first") as ci:
        live.write("first", OK)
        live.write("then", OK, "runtime: python\ntrigger: {chain: {from: first}}\n")
        await live.sync()
        run = await ci.call("run_task", id="first", wait_seconds=50)
        assert run["status"] == "success"
        assert (await only_run(live, "then"))["status"] == "success"
        assert await refusals(live) == []


async def test_an_alarm_is_raised_whoever_lost_his_key(serve: Serve) -> None:
    async with serve(http=True) as live, holding(live, "run:first") as ci:
        script, manifest = held(live, "raise ValueError('no')")
        live.write("first", script, manifest % "" + "on_failure_chain: alarm\n")
        live.write("alarm", OK)
        await live.sync()
        run = await ci.call("run_task", id="first", wait_seconds=0)
        await begun(live, run["run_id"])
        await owner(live, "keys_revoke", key="ci")
        release(live)
        assert (await only_run(live, "alarm"))["status"] == "success"


async def test_what_a_run_starts_after_its_key_is_gone_does_not_begin(serve: Serve) -> None:
    async with serve(http=True) as live, holding(live, "run:first") as ci:
        then = "from dicode_sdk import dicode\nresult = dicode.run_task('other', {})"
        script, manifest = held(live, then)
        live.write("first", script, manifest % ", dicode: {tasks: [other]}")
        live.write("other", OK)
        await live.sync()
        run = await ci.call("run_task", id="first", wait_seconds=0)
        await begun(live, run["run_id"])
        await owner(live, "keys_revoke", key="ci")
        release(live)
        ended = await live.call("get_run", run_id=run["run_id"], wait_seconds=50)
        assert ended["return_value"]["status"] == "skipped"
        assert ended["return_value"]["error"]["code"] == "forbidden"
        assert is_forbidden(await only_run(live, "other"))


async def test_an_answer_does_not_bring_back_the_run_of_a_key_that_is_gone(serve: Serve) -> None:
    asks = """
from dicode_sdk import dicode
result = dicode.ask({"type": "object", "properties": {"ok": {"type": "boolean"}}}, "May I?")
"""
    async with serve(http=True) as live, holding(live, "run:asks", "run:parent") as ci:
        live.write("asks", asks)
        calls = "from dicode_sdk import dicode\nresult = dicode.trigger('asks', None)\n"
        live.write("parent", calls, f"{MANUAL}permissions: {{dicode: {{tasks: [asks]}}}}\n")
        await live.sync()
        own = (await ci.call("run_task", id="asks", wait_seconds=50))["run_id"]
        parent = await ci.call("run_task", id="parent", wait_seconds=50)
        child = parent["return_value"]
        child = child if isinstance(child, str) else child["runID"]
        while (await live.call("get_run", run_id=child))["status"] != "waiting":
            pass
        await owner(live, "keys_revoke", key="ci")
        for run_id in (own, child):
            await live.call("answer_run", run_id=run_id, answer={"ok": True})
            ended = await live.call("get_run", run_id=run_id, wait_seconds=50)
            # It had begun, so it is no skip.
            assert (ended["status"], ended["reason"]) == ("cancelled", "forbidden")
        assert len(await refusals(live)) == 2


async def test_an_attempt_that_follows_does_not_outlive_the_key_behind_its_parent(
    serve: Serve,
) -> None:
    async with serve(http=True) as live, holding(live, "run:parent") as ci:
        script, manifest = held(live, "raise ValueError('no')")
        live.write("fails", script, manifest % "" + "retry: {attempts: 3, backoff: 10ms}\n")
        calls = "from dicode_sdk import dicode\nresult = dicode.trigger('fails', None)\n"
        live.write("parent", calls, f"{MANUAL}permissions: {{dicode: {{tasks: [fails]}}}}\n")
        await live.sync()
        assert (await ci.call("run_task", id="parent", wait_seconds=50))["status"] == "success"
        first = (await live.call("get_runs", task="fails"))["runs"][0]["run_id"]
        await begun(live, first)
        await owner(live, "keys_revoke", key="ci")
        release(live)
        ended = await live.call("get_run", run_id=first, wait_seconds=50)
        following = ended["next_attempt"]["run_id"]
        assert is_forbidden(await live.call("get_run", run_id=following, wait_seconds=50))


async def test_a_pattern_lets_a_task_go_no_further_than_who_asked(serve: Serve) -> None:
    calls = """
from dicode_sdk import dicode, params
found = {}
for name in ("other/one", "helper"):
    try:
        found[name] = dicode.run_task(name, {})["status"]
    except Exception as error:
        found[name] = str(error)
found["listed"] = sorted(task["id"] for task in dicode.list_tasks())
try:
    found["runs"] = len(dicode.get_runs("other/one", 5))
except Exception as error:
    found["runs"] = str(error)
try:
    found["replayed"] = dicode.runs.replay(params.get("of"))["task"]
except Exception as error:
    found["replayed"] = str(error)
result = found
"""
    grants = (
        "params: {of: ''}\n"
        "permissions: {dicode: {tasks: ['*/one', helper], list_tasks: true, get_runs: true,"
        " runs_replay: true}}\n"
    )
    async with serve(http=True) as live, holding(live, "run:deputy") as ci:
        live.write("deputy", calls, MANUAL + grants)
        live.write("other/one", OK)
        live.write("helper", OK)
        await live.sync()
        of = (await live.run("other/one"))["run_id"]
        told = await ci.call("run_task", id="deputy", params={"of": of}, wait_seconds=50)
        found = told["return_value"]
        assert "key:ci" in found["other/one"]
        assert "permissions.dicode.tasks" in found["other/one"]
        assert found["helper"] == "success"
        assert found["listed"] == ["deputy"]
        assert "no task" in found["runs"] or "not found" in found["runs"]
        assert "no run" in found["replayed"]
        # Its author and owner may all of it.
        mine = (await live.run("deputy", params={"of": of}))["return_value"]
        assert (mine["other/one"], mine["helper"], mine["replayed"]) == (
            "success",
            "success",
            "other/one",
        )
        assert {"deputy", "helper", "other/one"} <= set(mine["listed"])
        assert mine["runs"] >= 1


async def test_what_comes_of_a_keys_run_is_still_its_after_a_restart(serve: Serve) -> None:
    long = "import time\ntime.sleep(600)\n"
    async with serve(http=True, slots=1) as live, holding(live, "run:first") as ci:
        live.write("first", OK)
        live.write("long", long)
        live.write("then", OK, "runtime: python\ntrigger: {chain: {from: first}}\npriority: -5\n")
        await live.sync()
        run = await ci.call("run_task", id="first", wait_seconds=50)
        assert run["status"] == "success"
        assert (await only_run(live, "then"))["status"] == "success"
        blocker = await live.call("run_task", id="long", wait_seconds=0)
        await begun(live, blocker["run_id"])
        queued = await ci.call("run_task", id="first", wait_seconds=0)
        assert code_of(queued) == ""
        await owner(live, "keys_revoke", key="ci")
    async with serve(http=True, slots=1) as live:
        ended = await live.call("get_run", run_id=queued["run_id"], wait_seconds=50)
        assert is_forbidden(ended)


async def test_an_approval_stands_and_shows_that_the_key_behind_it_is_gone(
    serve: Serve, tmp_path: Path
) -> None:
    write_task(tmp_path / "watched", "one", OK)
    watched = SourceConfig(
        type="local", name="watched", path=str(tmp_path / "watched"), trust="review"
    )
    async with serve(http=True, sources=[watched]) as live, holding(live, "approve:*") as ci:
        waiting = (await live.call("get_task", id="watched/one"))["pending"]["hash"]
        done = await ci.call("approve_task", id="watched/one", hash=waiting)
        assert done["in_force"], done
        told = (await live.call("get_task", id="watched/one"))["approved"]
        assert told["by"].startswith("key:ci#")
        assert "key_gone" not in told
        await owner(live, "keys_revoke", key="ci")
        assert (await live.call("get_task", id="watched/one"))["approved"]["key_gone"] is True
        # What was approved is in force, to the letter; and what comes next waits again.
        assert (await live.run("watched/one"))["status"] == "success"
        write_task(tmp_path / "watched", "one", OK + "# more\n")
        await live.call("sync_source", source="watched")
        assert "pending" in await live.call("get_task", id="watched/one")

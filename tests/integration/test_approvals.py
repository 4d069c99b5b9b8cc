"""A whole server on a git source whose every change a human reviews."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from liveserver import Live, Serve

from dicode_mcp.config import SourceConfig
from dicode_mcp.testing.gitserver import GitServer, serving

DEADLINE_S = 30
YES = {"action": "accept", "content": {"approve": True}}
MANUAL = "trigger: {manual: true}\n"
TRIGGERS = {
    "hello": MANUAL,
    "timed": 'trigger: {cron: "0 9 * * *"}\n',
    "after": "trigger: {chain: {from: first, on: success}}\n",
    "alert": MANUAL,
    "always": "trigger: {daemon: true}\n",
}
CALLER = """\
from dicode_sdk import dicode
def main():
    try:
        return dicode.run_task("src/hello")["returnValue"]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


@pytest.fixture
def git(tmp_path: Path) -> Generator[GitServer]:
    with serving(tmp_path / "served") as server:
        yield server


def files(says: str, *, more: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, trigger in TRIGGERS.items():
        found[f"{name}/task.yaml"] = f"name: {name}\nruntime: python\n{trigger}{more}"
        found[f"{name}/task.py"] = f"def main():\n    return {says!r}\n"
    found["always/task.py"] = f"import time\nprint({says!r}, flush=True)\ntime.sleep(600)\n"
    return found


def source(git: GitServer) -> SourceConfig:
    return SourceConfig(
        type="git", url=git.url_of(), name="src", poll_interval=3600, trust="review"
    )


def write_own_tasks(live: Live) -> None:
    """Write trusted tasks that start the reviewed ones."""
    live.write("first", "result = 1\n")
    live.write("caller", CALLER, "runtime: python\n" + MANUAL + CALLS)
    live.write(
        "fails", "raise ValueError('on purpose')\n",
        "runtime: python\n" + MANUAL + "on_failure_chain: src/alert\n",
    )  # fmt: skip


CALLS = "permissions: {dicode: {tasks: ['src/hello']}}\n"


async def pending(live: Live, task_id: str) -> dict[str, Any]:
    task = await live.call("get_task", id=task_id)
    assert "pending" in task, task
    return task["pending"]


async def approve_all(live: Live) -> None:
    for name in TRIGGERS:
        found = await pending(live, f"src/{name}")
        answer, _ = await live.answer("approve_task", YES, id=f"src/{name}", hash=found["hash"])
        assert answer == {
            "id": f"src/{name}", "hash": found["hash"], "approved": True, "in_force": True,
        }  # fmt: skip


async def runs_of(live: Live, task_id: str) -> list[dict[str, Any]]:
    return (await live.call("get_runs", task=task_id))["runs"]


async def ended_run(live: Live, task_id: str, known: int) -> dict[str, Any]:
    """Wait for one more run of a task to end."""
    async with asyncio.timeout(DEADLINE_S):
        while len(found := await runs_of(live, task_id)) <= known:
            pass
    return await live.call("get_run", run_id=found[0]["run_id"], wait_seconds=50)


async def every_way(live: Live) -> dict[str, Any]:
    """Start the reviewed tasks in every way there is; gives what each came to."""
    said: dict[str, Any] = {}
    run = await live.call("run_task", id="src/hello", wait_seconds=50)
    said["call"] = run.get("return_value", run.get("error", {}).get("code"))
    said["sdk"] = (await live.run("caller"))["return_value"]
    for name, first, then in (("chain", "first", "after"), ("failure chain", "fails", "alert")):
        known = len(await runs_of(live, f"src/{then}"))
        await live.run(first)
        # What follows is stored with the end of the run before.
        if len(await runs_of(live, f"src/{then}")) == known:
            said[name] = "nothing"
            continue
        run = await ended_run(live, f"src/{then}", known)
        said[name] = run.get("return_value", run.get("reason"))
    return said


async def daemon_says(live: Live) -> list[str]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            running = [run for run in await runs_of(live, "src/always") if run.get("started_at")]
            if running:
                logs = await live.call("get_logs", run_id=running[0]["run_id"])
                if logs["lines"]:
                    return [line["message"] for line in logs["lines"]]


async def test_nothing_of_a_reviewed_source_starts_before_its_approval(
    serve: Serve, git: GitServer
) -> None:
    git.repository().commit(files("one"))
    async with serve(sources=[source(git)]) as live:
        write_own_tasks(live)
        await live.sync()
        said = await every_way(live)
        assert said["call"] == "task_not_ready"
        assert "waits for a human" in said["sdk"]
        assert (said["chain"], said["failure chain"]) == ("nothing", "task_gone")
        assert await runs_of(live, "src/always") == []
        timed = await live.call("get_task", id="src/timed")
        assert "next_run" not in timed
        tasks = (await live.call("list_tasks", status="pending_approval"))["tasks"]
        assert [task["id"] for task in tasks] == sorted(f"src/{name}" for name in TRIGGERS)
        assert (await live.call("get_status"))["tasks"]["pending_approval"] == 5
        await approve_all(live)
        assert set((await every_way(live)).values()) == {"one"}
        assert await daemon_says(live) == ["one"]
        assert "next_run" in await live.call("get_task", id="src/timed")


@pytest.mark.parametrize("kind", ["code", "permissions"])
async def test_a_change_waits_everywhere_while_the_approved_version_goes_on(
    kind: str, serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    repository.commit(files("one"))
    async with serve(sources=[source(git)]) as live:
        write_own_tasks(live)
        await live.sync()
        await approve_all(live)
        assert await daemon_says(live) == ["one"]
        more = "permissions: {net: [evil.example]}\n" if kind == "permissions" else ""
        repository.commit(files("two" if kind == "code" else "one", more=more))
        await live.call("sync_source", source="src")
        assert set((await every_way(live)).values()) == {"one"}
        assert [run["status"] for run in await runs_of(live, "src/always")] == ["running"]
        task = await live.call("get_task", id="src/hello")
        assert task["kept"]
        assert task["pending"]["hash"] != task["hash"]
        assert "permissions" not in task["spec"]
        changes = task["pending"]["changes"]
        if kind == "permissions":
            added = {"permissions.net[evil.example]": "evil.example"}
            assert changes["grants"] == {"added": added}
        else:
            assert changes["files"][0]["path"] == "task.py"
            assert "+    return 'two'" in changes["files"][0]["diff"]
        await approve_all(live)
        wanted = "two" if kind == "code" else "one"
        assert set((await every_way(live)).values()) == {wanted}
        newest = await live.call("get_task", id="src/hello")
        assert newest["hash"] == task["pending"]["hash"]
        assert "pending" not in newest


async def test_another_change_makes_what_was_reviewed_stale(serve: Serve, git: GitServer) -> None:
    repository = git.repository()
    repository.commit(files("one"))
    async with serve(sources=[source(git)]) as live:
        reviewed = (await pending(live, "src/hello"))["hash"]
        repository.commit(files("two"))
        await live.call("sync_source", source="src")
        newest = (await pending(live, "src/hello"))["hash"]
        answer, asked = await live.answer("approve_task", YES, id="src/hello", hash=reviewed)
        assert asked == []
        assert answer["error"]["code"] == "conflict"
        assert answer["error"]["data"] == {"hash": newest}
        assert (await live.call("run_task", id="src/hello"))["error"]["code"] == "task_not_ready"


async def test_what_waits_still_waits_after_a_restart_and_the_approved_version_runs(
    serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    first = repository.commit(files("one"))
    async with serve(sources=[source(git)]) as live:
        await approve_all(live)
        repository.commit(files("two"))
        await live.call("sync_source", source="src")
    git.fault = lambda exchange: exchange.drop()
    async with serve(sources=[source(git)]) as live:
        run = await live.run("src/hello")
        assert (run["return_value"], run["revision"]) == ("one", first)
        task = await live.call("get_task", id="src/hello")
        assert task["kept"]
        await approve_all(live)
        assert (await live.run("src/hello"))["return_value"] == "two"
    async with serve(sources=[source(git)]) as live:
        assert (await live.run("src/hello"))["return_value"] == "two"


async def test_no_caller_approves_alone(serve: Serve, git: GitServer) -> None:
    git.repository().commit(files("one"))
    async with serve(sources=[source(git)]) as live:
        digest = (await pending(live, "src/hello"))["hash"]
        call: dict[str, Any] = {"id": "src/hello", "hash": digest}
        answer = await live.call("approve_task", **call)
        assert answer["error"]["code"] == "forbidden"
        assert "dicode task approve src/hello" in answer["error"]["hint"]
        for action in ("decline", "cancel"):
            answer, asked = await live.answer("approve_task", {"action": action}, **call)
            assert not answer["approved"]
            assert len(asked) == 1
        names = ("approve", f"approve {digest}", f"approve {digest[:32]}", digest)
        unasked = {name: dict(YES) for name in names}
        capabilities: dict[str, Any] = {"elicitation": {"form": {}}}
        result = await live.request(
            "tools/call",
            {
                "name": "approve_task",
                "arguments": call,
                "inputResponses": unasked,
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": capabilities,
                },
            },
        )
        assert result["result"]["resultType"] == "input_required"
        assert (await live.call("run_task", id="src/hello"))["error"]["code"] == "task_not_ready"


async def test_whoever_is_asked_sees_what_the_version_may_do(serve: Serve, git: GitServer) -> None:
    more = "permissions: {net: [api.example], env: [{name: KEY, secret: api_key}]}\n"
    git.repository().commit(files("one", more=more))
    async with serve(sources=[source(git)]) as live:
        digest = (await pending(live, "src/timed"))["hash"]
        answer, asked = await live.answer("approve_task", YES, id="src/timed", hash=digest[:12])
        assert answer["in_force"]
        text = asked[0]["message"]
        for part in (digest[:12], "src/timed", "0 9 * * *", "api.example", "api_key", "task.py"):
            assert part in text, part

"""Sharing through a whole server: what is installed runs by nothing before it is approved."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from liveserver import Live, Serve

from dicode_mcp.cli.client import Client
from dicode_mcp.config import SourceConfig
from dicode_mcp.testing.gitserver import GitServer, serving

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="the fixture serves with git")

UPTIME = 'name: Uptime\nruntime: python\ntrigger: {cron: "* * * * *"}\n'


@pytest.fixture
def git(tmp_path: Path) -> Generator[GitServer]:
    with serving(tmp_path / "served") as server:
        yield server


def both_files(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in ("taskset.yaml", "dicode.lock")}


async def test_what_is_installed_waits_over_a_restart(serve: Serve, git: GitServer) -> None:
    repository = git.repository("uptime.git")
    repository.commit({"task.yaml": UPTIME, "task.py": "result = 1\n"})
    async with serve() as live:
        names = [source["name"] for source in (await live.call("list_sources"))["sources"]]
        assert "installed" not in names
        made = await live.call("install_task", task=git.url_of("uptime.git"))
        assert made["id"] == "installed/uptime", made
        (task,) = made["tasks"]
        assert task["state"] == "pending_approval"
        assert task["grants"]["runtime"] == "python"
        refused = await live.call("run_task", id="installed/uptime", wait_seconds=0)
        assert refused["error"]["code"] == "task_not_ready"
        shown = await live.call("get_task", id="installed/uptime")
        ready = next(c for c in shown["conditions"] if c["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "PendingApproval")
        assert task["hash"] in ready["message"]
        assert "next_run" not in shown
    async with serve() as live:
        shown = await live.call("get_task", id="installed/uptime")
        assert next(c for c in shown["conditions"] if c["type"] == "Ready")["status"] == "False"
        gone = await live.call("uninstall_task", id="installed/uptime")
        assert gone["tasks"] == ["installed/uptime"]
        assert "error" in await live.call("get_task", id="installed/uptime")


async def test_a_set_of_the_users_gets_what_is_installed(
    serve: Serve, git: GitServer, tmp_path: Path
) -> None:
    git.repository("uptime.git").commit({"task.yaml": UPTIME, "task.py": "result = 1\n"})
    folder = tmp_path / "infra"
    folder.mkdir()
    (folder / "taskset.yaml").write_text("kind: TaskSet\nspec:\n  entries: {}  # none\n")
    source = SourceConfig(type="local", path=str(folder), name="infra")
    async with serve(sources=[source]) as live:
        made = await live.call("install_task", task=git.url_of("uptime.git"), source="tasks")
        assert made["error"]["code"] == "not_supported"
        made = await live.call("install_task", task=git.url_of("uptime.git"))
        assert (made["id"], made["source"]) == ("infra/uptime", "infra")
        listed = await live.call("list_tasks", query="infra/uptime")
        assert listed["tasks"][0]["conditions"][0]["reason"] == "PendingApproval"
        same = await live.call("update_task", id="infra/uptime")
        assert (same["status"], same["pending"]) == ("up_to_date", True)


async def test_a_set_in_git_is_edited_in_dev_mode_only(
    serve: Serve, git: GitServer, tmp_path: Path
) -> None:
    git.repository("uptime.git").commit({"task.yaml": UPTIME, "task.py": "result = 1\n"})
    git.repository("team.git").commit({"taskset.yaml": "kind: TaskSet\nspec:\n  entries:\n"})
    source = SourceConfig(type="git", url=git.url_of("team.git"), name="team")
    url = git.url_of("uptime.git")
    async with serve(sources=[source]) as live:
        refused = await live.call("install_task", task=url, source="team")
        assert refused["error"]["code"] == "forbidden"
        assert "switch_dev_mode" in refused["error"]["hint"]
        await live.call("switch_dev_mode", source="team", enabled=True, branch="add-uptime")
        made = await live.call("install_task", task=url, source="team")
        assert made["id"] == "team/uptime", made
        lock = Path(made["file"]).with_name("dicode.lock")
        assert made["commit"] in lock.read_text()
        # committed and pushed by hand, both files come from git and say the same
        git.repository("team.git").commit(both_files(lock.parent))
        await live.call("switch_dev_mode", source="team", enabled=False)
        await live.call("sync_source", source="team")
        shown = await live.call("get_task", id="team/uptime")
        assert shown["conditions"][0]["reason"] == "PendingApproval"
        refused = await live.call("uninstall_task", id="team/uptime")
        assert refused["error"]["code"] == "forbidden"


async def approve(live: Live, task_id: str, digest: str) -> dict[str, Any]:
    """Approve as somebody at a terminal does."""

    def work() -> dict[str, Any]:
        with Client.connect(str(live.data / "dicode.sock")) as client:
            return client.call(
                "approve_task",
                {"id": task_id, "hash": digest},
                ask=lambda form: {"action": "accept", "content": {"approve": True}},
            )

    return await asyncio.to_thread(work)


async def test_what_is_approved_runs_and_an_update_waits_beside_it(
    serve: Serve, git: GitServer
) -> None:
    manual = UPTIME.replace('{cron: "* * * * *"}', "{manual: true}")
    repository = git.repository("uptime.git")
    repository.commit({"task.yaml": manual, "task.py": "result = 1\n"})
    first = repository.head()
    async with serve() as live:
        made = await live.call("install_task", task=git.url_of("uptime.git"))
        done = await approve(live, "installed/uptime", made["tasks"][0]["hash"])
        assert done["in_force"]
        run = await live.run("installed/uptime")
        assert (run["return_value"], run["revision"]) == (1, first)
        second = repository.commit({"task.py": "result = 2\n"}, message="two")
        moved = await live.call("update_task", id="uptime")
        assert (moved["from"], moved["to"], moved["pending"]) == (first, second, True), moved
        (line,) = moved["tasks"]
        (file,) = line["changes"]["files"]
        assert "-result = 1\n+result = 2" in file["diff"]
        assert (await live.run("installed/uptime"))["return_value"] == 1
    async with serve() as live:
        # over a restart too the approved version is the one that runs
        assert (await live.run("installed/uptime"))["return_value"] == 1
        stale = await live.call(
            "approve_task", id="installed/uptime", hash=made["tasks"][0]["hash"]
        )
        assert stale["error"]["code"] == "conflict"
        alone = await live.call("approve_task", id="installed/uptime", hash=line["hash"])
        assert alone["error"]["code"] == "forbidden"
        await approve(live, "installed/uptime", line["hash"])
        run = await live.run("installed/uptime")
        assert (run["return_value"], run["revision"]) == (2, second)
        await live.call("uninstall_task", id="installed/uptime")
        again = await live.call("install_task", task=git.url_of("uptime.git"))
        assert again["pending"], "an approval does not outlive what it was for"

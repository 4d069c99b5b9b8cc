"""Dev mode of a whole server, on a real repository: by MCP, over HTTP, across restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from liveserver import Live, Serve, write_task

from dicode_mcp.config import SourceConfig
from dicode_mcp.testing.repositories import Remote

pytestmark = pytest.mark.slow
FILES = {
    "hello/task.yaml": "name: Hello\nruntime: python\ntrigger: {manual: true}\n",
    "hello/task.py": "def main():\n    return 'from git'\n",
}


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote(tmp_path / "remote.git")
    made.commit(FILES)
    return made


def git_source(remote: Remote, **more: Any) -> SourceConfig:
    return SourceConfig(name="src", type="git", url=remote.url, poll_interval=3600, **more)


async def returned(live: Live, task: str = "src/hello") -> Any:
    run = await live.run(task)
    assert run["status"] == "success", run
    return run["return_value"]


async def source(live: Live, name: str = "src") -> dict[str, Any]:
    listed = await live.call("list_sources")
    return next(s for s in listed["sources"] if s["name"] == name)


async def switch(live: Live, **arguments: Any) -> dict[str, Any]:
    return await live.call("switch_dev_mode", source="src", **arguments)


async def test_a_folder_stands_in_for_git_until_dev_mode_ends(
    serve: Serve, remote: Remote, tmp_path: Path
) -> None:
    dev = tmp_path / "my tasks"
    write_task(dev, "hello", "def main():\n    return 'from my folder'\n")
    async with serve(sources=[git_source(remote)]) as live:
        assert await returned(live) == "from git"
        shown = await switch(live, enabled=True, local_path=str(dev))
        assert shown["dev_mode"] is True
        assert shown["dev"] == {"local_path": str(dev), "folder": str(dev)}
        assert (shown["type"], shown["url"]) == ("git", remote.url)
        assert await returned(live) == "from my folder"
        task = await live.call("get_task", id="src/hello")
        assert (task["dev_mode"], task["folder"]) == (True, str(dev / "hello"))
        listed = (await live.call("list_tasks", source="src"))["tasks"]
        assert [t.get("dev_mode") for t in listed] == [True]
        write_task(dev, "hello", "def main():\n    return 'edited'\n")
        write_task(dev, "more", "def main():\n    return 'new'\n")
        async with asyncio.timeout(20):
            while "error" in await live.call("get_task", id="src/more"):
                pass
            while await returned(live) != "edited":
                pass
        shown = await switch(live, enabled=False)
        assert shown["dev_mode"] is False
        assert "dev" not in shown
        assert shown["revision"] == remote.tip()
        assert await returned(live) == "from git"
        gone = await live.call("get_task", id="src/more")
        assert gone["error"]["code"] == "task_not_found"


async def test_dev_mode_survives_a_restart_with_the_remote_gone(
    serve: Serve, remote: Remote, tmp_path: Path
) -> None:
    dev = tmp_path / "dev"
    write_task(dev, "hello", "def main():\n    return 'from my folder'\n")
    async with serve(sources=[git_source(remote)]) as live:
        await switch(live, enabled=True, local_path=str(dev))
    remote.folder.rename(tmp_path / "away.git")
    async with serve(sources=[git_source(remote)]) as live:
        assert (await source(live))["dev_mode"] is True
        assert await returned(live) == "from my folder"
        await switch(live, enabled=False)
        assert await returned(live) == "from git"
    async with serve(sources=[git_source(remote)]) as live:
        assert (await source(live))["dev_mode"] is False
        assert await returned(live) == "from git"


async def test_a_folder_that_is_gone_after_a_restart_is_said(
    serve: Serve, remote: Remote, tmp_path: Path
) -> None:
    dev = tmp_path / "dev"
    write_task(dev, "hello", "def main():\n    return 1\n")
    async with serve(sources=[git_source(remote)]) as live:
        await switch(live, enabled=True, local_path=str(dev))
    dev.rename(tmp_path / "elsewhere")
    async with serve(sources=[git_source(remote)]) as live:
        shown = await source(live)
        assert shown["dev_mode"] is True
        synced = next(c for c in shown["conditions"] if c["type"] == "Synced")
        assert synced["status"] == "False"
        assert "dicode source dev src --disable" in synced["message"]
        await switch(live, enabled=False)
        assert await returned(live) == "from git"


async def test_a_branch_is_edited_committed_and_pushed_without_a_file_system(
    serve: Serve, remote: Remote
) -> None:
    async with serve(sources=[git_source(remote)]) as live:
        refused = await live.call(
            "write_task_file", id="src/hello", path="task.py", content="def main():\n    return 1\n"
        )
        assert refused["error"]["code"] == "forbidden"
        assert "switch_dev_mode" in refused["error"]["hint"]
        shown = await switch(live, enabled=True, branch="fix/hello")
        assert (shown["dev"]["branch"], shown["dev"]["new_branch"]) == ("fix/hello", True)
        assert await returned(live) == "from git"
        read = await live.call("read_task_file", id="src/hello", path="task.py")
        written = await live.call(
            "write_task_file",
            id="src/hello",
            path="task.py",
            content=read["content"].replace("from git", "mended"),
            expected_hash=read["hash"],
        )
        assert (written["live"], written["valid"], written["changed"]) == (True, True, True)
        assert "+    return 'mended'" in written["diff"]
        assert await returned(live) == "mended"
        made = await live.call(
            "commit_task",
            id="src/hello",
            message="Mend it",
            push=True,
            author="Ada <ada@example.com>",
        )
        assert (made["branch"], made["pushed"]) == ("fix/hello", True)
        assert remote.tip("fix/hello") == made["commit"]
        assert remote.read("main") == FILES
        again = await switch(live, enabled=True, branch="fix/hello")
        assert "new_branch" not in again["dev"]
    async with serve(sources=[git_source(remote)]) as live:
        assert (await source(live))["dev"]["branch"] == "fix/hello"
        assert await returned(live) == "mended"
        await switch(live, enabled=False)
        assert await returned(live) == "from git"


async def test_a_run_goes_on_with_what_it_started_with(
    serve: Serve, remote: Remote, tmp_path: Path
) -> None:
    waiting = "import time, pathlib\ndef main(log):\n    log.info('on')\n    time.sleep(1)\n"
    remote.commit({"hello/task.py": waiting + "    return 'old'\n"})
    write_task(tmp_path / "dev", "hello", "def main():\n    return 'new'\n")
    async with serve(sources=[git_source(remote)]) as live:
        run = await live.call("run_task", id="src/hello", wait_seconds=0)
        await live.first_line(run["run_id"])
        await switch(live, enabled=True, local_path=str(tmp_path / "dev"))
        assert await returned(live) == "new"
        ended = await live.call("get_run", run_id=run["run_id"], wait_seconds=20)
        assert ended["return_value"] == "old"


async def test_what_cannot_be_shown_is_refused_and_changes_nothing(
    serve: Serve, remote: Remote, tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("")
    wrong: list[tuple[Mapping[str, Any], str]] = [
        ({"source": "srv", "enabled": True}, "source_not_found"),
        ({"source": "src", "enabled": True, "local_path": "relative"}, "invalid_argument"),
        ({"source": "src", "enabled": True, "local_path": str(tmp_path / "no")}, "not_found"),
        (
            {"source": "src", "enabled": True, "local_path": str(tmp_path / "file.txt")},
            "invalid_argument",
        ),
        (
            {"source": "src", "enabled": True, "local_path": str(tmp_path / "data")},
            "invalid_argument",
        ),
        ({"source": "src", "enabled": True, "local_path": str(tmp_path)}, "invalid_argument"),
        ({"source": "src", "enabled": True, "local_path": "/x", "branch": "y"}, "invalid_argument"),
        ({"source": "src", "enabled": False, "branch": "main"}, "invalid_argument"),
        ({"source": "src", "enabled": True, "branch": "a..b"}, "invalid_argument"),
        ({"source": "src", "enabled": True, "branch": "-x"}, "invalid_argument"),
        ({"source": "tasks", "enabled": True, "branch": "main"}, "invalid_argument"),
        ({"source": "src"}, "invalid_argument"),
    ]
    async with serve(sources=[git_source(remote)]) as live:
        for arguments, code in wrong:
            refused = await live.call("switch_dev_mode", **arguments)
            assert refused["error"]["code"] == code, (arguments, refused)
            assert refused["error"]["hint"]
        assert (await source(live))["dev_mode"] is False
        assert await returned(live) == "from git"


async def test_dev_mode_is_switched_over_http_as_the_documents_say(
    serve: Serve, remote: Remote, tmp_path: Path
) -> None:
    dev = tmp_path / "dev"
    write_task(dev, "hello", "def main():\n    return 'from my folder'\n")
    (dev / "taskset.yaml").write_text(
        "apiVersion: dicode/v1\nkind: TaskSet\nmetadata: {name: src}\n"
        "spec:\n  entries:\n    hello:\n      ref: {path: ./hello}\n"
    )
    async with serve(http=True, sources=[git_source(remote)]) as live:
        assert live.server.url
        async with httpx.AsyncClient(base_url=live.server.url) as client:
            body = {"enabled": True, "local_path": str(dev / "taskset.yaml")}
            answer = await client.patch("/api/sources/src/dev", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["dev"]["local_path"] == str(dev / "taskset.yaml")
            assert await returned(live) == "from my folder"
            listed = (await client.get("/api/sources")).json()["sources"]
            shown = [(s["name"], s["dev_mode"]) for s in listed]
            assert shown == [("tasks", False), ("src", True), ("bundled", False)]
            answer = await client.patch("/api/sources/src/dev", json={"enabled": False})
            assert answer.json()["dev_mode"] is False
            assert await returned(live) == "from git"
            for sent, status, code in (
                ({"enabled": "yes"}, 400, "invalid_argument"),
                ({"enabled": True, "path": "/x"}, 400, "invalid_argument"),
                ({}, 400, "invalid_argument"),
                ([1], 400, "invalid_argument"),
                ({"enabled": True, "local_path": "/no/such/folder"}, 404, "not_found"),
            ):
                answer = await client.patch("/api/sources/src/dev", json=sent)
                assert (answer.status_code, answer.json()["code"]) == (status, code)
                assert answer.headers["content-type"] == "application/problem+json"
            answer = await client.patch("/api/sources/nobody/dev", json={"enabled": False})
            assert (answer.status_code, answer.json()["code"]) == (404, "source_not_found")
            text = json.dumps({"enabled": False})
            answer = await client.patch("/api/sources/src/dev", content=text)
            assert answer.status_code == 400
            foreign = {"origin": "https://example.com"}
            answer = await client.patch("/api/sources/src/dev", json={}, headers=foreign)
            assert answer.status_code == 403


async def test_without_a_place_only_the_dev_refs_are_switched(
    serve: Serve, remote: Remote, tmp_path: Path
) -> None:
    write_task(tmp_path / "mine", "hello", "def main():\n    return 'from the dev_ref'\n")
    entries = (
        "apiVersion: dicode/v1\nkind: TaskSet\nmetadata: {name: set}\nspec:\n  entries:\n"
        f"    hello: {{ref: {{path: ./hello, dev_ref: {{path: {tmp_path}/mine/hello}}}}}}\n"
        "    other: {ref: {path: ./hello}}\n"
    )
    remote.commit({"taskset.yaml": entries})
    async with serve(sources=[git_source(remote)]) as live:
        assert await returned(live, "set/hello") == "from git"
        shown = await switch(live, enabled=True)
        assert shown["dev"] == {"dev_refs_only": True}
        assert shown["revision"] == remote.tip()
        assert await returned(live, "set/hello") == "from the dev_ref"
        assert await returned(live, "set/other") == "from git"
    async with serve(sources=[git_source(remote)]) as live:
        assert await returned(live, "set/hello") == "from the dev_ref"
        await switch(live, enabled=False)
        assert await returned(live, "set/hello") == "from git"


async def test_a_clone_begins_where_the_source_does(serve: Serve, remote: Remote) -> None:
    remote.commit({f"deep/{name}": text for name, text in FILES.items()})
    inside = git_source(remote, path="deep")
    async with serve(sources=[inside]) as live:
        shown = await switch(live, enabled=True, branch="more")
        assert shown["dev"]["folder"].endswith("/deep")
        made = await live.call("new_task", source="src", id="src/extra", template="python")
        assert (made["id"], made["live"]) == ("src/extra", True)
        made = await live.call(
            "commit_task", id="src/extra", message="More", push=True, author="A <a@example.com>"
        )
        assert [file["path"] for file in made["files"]] == ["task.py", "task.yaml", "task_test.py"]
        assert "deep/extra/task.py" in remote.read("more")


async def test_a_pin_and_dev_mode_do_not_forget_each_other(
    serve: Serve, remote: Remote, tmp_path: Path
) -> None:
    first = remote.tip()
    remote.commit({"hello/task.py": "def main():\n    return 'newer'\n"})
    write_task(tmp_path / "dev", "hello", "def main():\n    return 'dev'\n")
    async with serve(sources=[git_source(remote)]) as live:
        await asyncio.gather(
            live.call("sync_source", source="src", commit=first),
            switch(live, enabled=True, local_path=str(tmp_path / "dev")),
        )
        assert await returned(live) == "dev"
    async with serve(sources=[git_source(remote)]) as live:
        assert await returned(live) == "dev"
        shown = await switch(live, enabled=False)
        assert shown["revision"] == first
        assert await returned(live) == "from git"
        await live.call("sync_source", source="src", unpin=True)
        assert await returned(live) == "newer"

"""What an approval covers: the version that was shown, in git and in folders, by the clock too."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from liveserver import MANUAL, Live, Serve, write_task
from test_approvals import approve_all, files, pending, runs_of, source

from dicode_mcp.clock import SystemClock
from dicode_mcp.config import SourceConfig
from dicode_mcp.testing.gitserver import GitServer, serving

DEADLINE_S = 30
YES = {"action": "accept", "content": {"approve": True}}
READS = """\
import pathlib
def main():
    here = pathlib.Path(__file__).parent
    return [(here / name).read_text() for name in (".hidden", "../shared/text.txt")]
"""
MAY_READ = "permissions: {fs: [{path: ../shared, permission: r}]}\n"
MINUTE_MS = 60_000


@pytest.fixture
def git(tmp_path: Path) -> Generator[GitServer]:
    with serving(tmp_path / "served") as server:
        yield server


def reading(text: str, script: str = READS) -> dict[str, str]:
    return {
        "reads/task.yaml": f"name: Reads\n{MANUAL}{MAY_READ}",
        "reads/task.py": script,
        "reads/.hidden": text,
        "shared/text.txt": text,
    }


async def approve(live: Live, task_id: str) -> dict[str, Any]:
    digest = (await pending(live, task_id))["hash"]
    answer, _ = await live.answer("approve_task", YES, id=task_id, hash=digest)
    assert answer["in_force"], answer
    return answer


async def test_what_the_hash_does_not_cover_stays_as_it_was_approved(
    serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    first = repository.commit(reading("one"))
    async with serve(sources=[source(git)]) as live:
        shown = await pending(live, "src/reads")
        assert shown["changes"]["uncovered"] == [".hidden"]
        await approve(live, "src/reads")
        assert (await live.run("src/reads"))["return_value"] == ["one", "one"]
        repository.commit(reading("two"))
        await live.call("sync_source", source="src")
        run = await live.run("src/reads")
        assert (run["return_value"], run["revision"]) == (["one", "one"], first)
        task = await live.call("get_task", id="src/reads")
        assert "pending" not in task
    async with serve(sources=[source(git)]) as live:
        run = await live.run("src/reads")
        assert (run["return_value"], run["revision"]) == (["one", "one"], first)
        newest = repository.commit(reading("two", READS + "# more\n"))
        await live.call("sync_source", source="src")
        assert (await live.run("src/reads"))["return_value"] == ["one", "one"]
        await approve(live, "src/reads")
        run = await live.run("src/reads")
        assert (run["return_value"], run["revision"]) == (["two", "two"], newest)


async def test_a_version_that_comes_back_runs_as_it_was_approved(
    serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    first = repository.commit(reading("one"))
    async with serve(sources=[source(git)]) as live:
        await approve(live, "src/reads")
        repository.commit(reading("two", READS + "# more\n"))
        await live.call("sync_source", source="src")
        await approve(live, "src/reads")
        repository.commit(reading("three"))
        await live.call("sync_source", source="src")
        run = await live.run("src/reads")
        assert (run["return_value"], run["revision"]) == (["one", "one"], first)


# Folders of this machine


def reviewed(folder: Path) -> SourceConfig:
    return SourceConfig(type="local", path=str(folder), name="mine", trust="review")


async def test_a_script_that_is_edited_waits_while_the_approved_text_runs(
    serve: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "reviewed"
    write_task(folder, "one", "result = 1\n")
    async with serve(sources=[reviewed(folder)]) as live:
        assert (await live.call("run_task", id="mine/one"))["error"]["code"] == "task_not_ready"
        await approve(live, "mine/one")
        write_task(folder, "one", "result = 2\n")
        await live.call("sync_source", source="mine")
        assert (await live.run("mine/one"))["return_value"] == 1
        await approve(live, "mine/one")
        assert (await live.run("mine/one"))["return_value"] == 2


@pytest.mark.parametrize("manifest", [MANUAL, "runtime: [\n"], ids=["good", "broken"])
async def test_a_module_that_is_written_over_is_not_run_with_the_approved_script(
    manifest: str, serve: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "reviewed"
    write_task(folder, "two", "import helper\nresult = helper.SAYS\n")
    (folder / "two" / "helper.py").write_text("SAYS = 1\n")
    async with serve(sources=[reviewed(folder)]) as live:
        await approve(live, "mine/two")
        assert (await live.run("mine/two"))["return_value"] == 1
        (folder / "two" / "helper.py").write_text("SAYS = 2\n")
        write_task(folder, "two", "import helper\nresult = helper.SAYS\n", manifest)
        await live.call("sync_source", source="mine")
        refused = await live.call("run_task", id="mine/two")
        assert refused["error"]["code"] == "task_not_ready"
        (folder / "two" / "helper.py").write_text("SAYS = 1\n")
        write_task(folder, "two", "import helper\nresult = helper.SAYS\n")
        await live.call("sync_source", source="mine")
        assert (await live.run("mine/two"))["return_value"] == 1


async def test_a_set_that_breaks_leaves_approved_tasks_whose_files_are_the_same(
    serve: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "reviewed"
    write_task(folder, "two", "import helper\nresult = helper.SAYS\n")
    (folder / "two" / "helper.py").write_text("SAYS = 1\n")
    entries = "kind: TaskSet\nspec:\n  entries:\n    two: {ref: {path: two}}\n"
    (folder / "taskset.yaml").write_text(entries)
    async with serve(sources=[reviewed(folder)]) as live:
        await approve(live, "mine/two")
        (folder / "taskset.yaml").write_text(entries + "    oops: ]\n")
        await live.call("sync_source", source="mine")
        assert (await live.run("mine/two"))["return_value"] == 1
        (folder / "two" / "helper.py").write_text("SAYS = 2\n")
        await live.call("sync_source", source="mine")
        assert "error" in await live.call("run_task", id="mine/two")


async def test_a_dev_ref_of_a_reviewed_source_is_reviewed_too(
    serve: Serve, git: GitServer, tmp_path: Path
) -> None:
    write_task(tmp_path / "elsewhere", "one", "result = 'not reviewed'\n")
    ref = f"{{path: one, dev_ref: {{path: '{tmp_path}/elsewhere/one'}}}}"
    git.repository().commit(
        {
            "taskset.yaml": f"kind: TaskSet\nspec:\n  entries:\n    one: {{ref: {ref}}}\n",
            "one/task.yaml": f"name: one\n{MANUAL}",
            "one/task.py": "result = 'reviewed'\n",
        }
    )
    async with serve(sources=[source(git)]) as live:
        await approve(live, "src/one")
        await live.call("switch_dev_mode", source="src", enabled=True)
        assert (await live.run("src/one"))["return_value"] == "reviewed"
        await pending(live, "src/one")


# By itself


class NearMinute(SystemClock):
    """A wall clock that can be put just before the next minute."""

    def __init__(self) -> None:
        self._ahead = 0

    def now_ms(self) -> int:
        return super().now_ms() + self._ahead

    def hurry(self) -> None:
        """Jump to a moment before the next minute."""
        self._ahead += MINUTE_MS - self.now_ms() % MINUTE_MS - 200


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> NearMinute:
    made = NearMinute()
    made.hurry()
    monkeypatch.setattr("liveserver.SystemClock", lambda: made)
    return made


def by_the_minute(says: str) -> dict[str, str]:
    return {
        "timed/task.yaml": 'name: timed\nruntime: python\ntrigger: {cron: "* * * * *"}\n',
        "timed/task.py": f"result = {says!r}\n",
    }


async def slot_of(live: Live, task_id: str, clock: NearMinute) -> dict[str, Any]:
    """Let a minute begin; gives the run of its slot."""
    known = len(await runs_of(live, task_id))
    clock.hurry()
    # Cron looks at the clock anew when a task changes.
    cron = 'runtime: python\ntrigger: {cron: "0 0 1 1 *"}\n'
    live.write("nudge", f"result = {clock.now_ms()}\n", cron)
    await live.sync()
    async with asyncio.timeout(DEADLINE_S):
        while len(found := await runs_of(live, task_id)) <= known:
            pass
    return await live.call("get_run", run_id=found[0]["run_id"], wait_seconds=50)


async def test_a_cron_slot_starts_the_approved_version_and_nothing_before(
    serve: Serve, git: GitServer, clock: NearMinute
) -> None:
    repository = git.repository()
    repository.commit(by_the_minute("one"))
    async with serve(sources=[source(git)]) as live:
        live.write("own", "result = 0\n", 'runtime: python\ntrigger: {cron: "* * * * *"}\n')
        await live.sync()
        await slot_of(live, "own", clock)
        assert await runs_of(live, "src/timed") == []
        await approve(live, "src/timed")
        assert (await slot_of(live, "src/timed", clock))["return_value"] == "one"
        repository.commit(by_the_minute("two"))
        await live.call("sync_source", source="src")
        assert (await slot_of(live, "src/timed", clock))["return_value"] == "one"
        await approve(live, "src/timed")
        assert (await slot_of(live, "src/timed", clock))["return_value"] == "two"


async def test_a_daemon_that_is_started_again_is_the_approved_version(
    serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    repository.commit(files("one"))
    async with serve(sources=[source(git)]) as live:
        await approve_all(live)
        (first,) = await started(live, 1)
        repository.commit(files("two"))
        await live.call("sync_source", source="src")
        await live.call("cancel_run", run_id=first["run_id"])
        second, _ = await started(live, 2)
        await live.first_line(second["run_id"])
        lines = (await live.call("get_logs", run_id=second["run_id"]))["lines"]
        assert [line["message"] for line in lines] == ["one"]


async def started(live: Live, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            runs = [r for r in await runs_of(live, "src/always") if r.get("started_at")]
            if len(runs) == count:
                return runs

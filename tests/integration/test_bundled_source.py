"""The tasks that come with the server: found, quiet, overridden, left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from liveserver import Live, Serve

import dicode_agents
from dicode_mcp.bundled import bundled
from dicode_mcp.config import Config, read_config
from dicode_mcp.config.model import BundledConfig, SourceConfig
from dicode_mcp.spec.problems import SpecError

AGENTS = Path(dicode_agents.__file__).parent
NAMES = [
    "agent-runner",
    "alert",
    "discord",
    "email",
    "notify",
    "ntfy",
    "secret-providers/doppler",
    "secret-providers/onepassword",
    "secret-providers/vault",
    "slack",
    "telegram",
    "webhook",
]


async def ids(live: Live, **wanted: str) -> list[str]:
    return [task["id"] for task in (await live.call("list_tasks", **wanted))["tasks"]]


async def test_they_are_there_and_well_and_start_nothing_by_themselves(serve: Serve) -> None:
    async with serve() as live:
        listed = (await live.call("list_tasks", source="bundled"))["tasks"]
        assert [task["id"] for task in listed] == [f"bundled/{name}" for name in NAMES]
        for task in listed:
            seen = await live.call("get_task", id=task["id"])
            assert "manual" in str(task["trigger"])
            assert seen["conditions"][0]["type"] == "Ready"
            assert {c["status"] for c in seen["conditions"] if c["type"] == "Ready"} == {"True"}
        assert (await live.call("get_runs"))["runs"] == []


async def test_a_plain_listing_shows_the_users_own_tasks_and_says_what_it_leaves_out(
    serve: Serve,
) -> None:
    async with serve() as live:
        live.write("mine", "pass\n")
        await live.sync()
        listed = await live.call("list_tasks")
        assert [task["id"] for task in listed["tasks"]] == ["mine"]
        assert "12 tasks that come with dicode" in listed["note"]
        assert 'source "bundled"' in listed["note"]
        assert await ids(live, query="slack") == ["bundled/slack"]
        assert "bundled/ntfy" in await ids(live, tag="notify")


async def test_an_override_that_is_wrong_is_seen_in_every_listing(serve: Serve) -> None:
    config = BundledConfig(overrides={"ntfy": {"retry": {"attempts": -1}}})
    async with serve(bundled=config) as live:
        assert await ids(live) == ["bundled/ntfy"]
        seen = await live.call("get_task", id="bundled/ntfy")
        assert "attempts" in str(seen["problems"])


async def test_an_override_changes_what_the_task_says(serve: Serve) -> None:
    override = {"params": {"topic": "ops"}, "net": ["ntfy.example.org"], "timeout": "5s"}
    async with serve(bundled=BundledConfig(overrides={"ntfy": override})) as live:
        spec = (await live.call("get_task", id="bundled/ntfy"))["spec"]
        assert spec["params"]["topic"]["default"] == "ops"
        assert spec["permissions"]["net"] == ["ntfy.example.org"]
        assert spec["timeout"] == "5s"


async def test_they_can_be_left_out(serve: Serve) -> None:
    async with serve(bundled=BundledConfig(enabled=False)) as live:
        assert await ids(live, query="slack") == []
        assert [s["name"] for s in (await live.call("list_sources"))["sources"]] == ["tasks"]
        live.write("caller", "def main(dicode):\n    return dicode.agent('a')\n", CALLER)
        (live.tasks / "caller" / "agents" / "a").mkdir(parents=True)
        (live.tasks / "caller" / "agents" / "a" / "agent.py").write_text("print(1)\n")
        await live.sync()
        run = await live.run("caller")
        assert "this server runs no agents" in run["error"]["message"]
        assert "bundled: false" in run["error"]["hint"]


CALLER = "runtime: python\ntrigger: {manual: true}\npermissions: {dicode: {agents: [a]}}\n"


async def test_a_source_of_the_users_of_that_name_keeps_it(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    own = SourceConfig(type="local", name="bundled", path=str(tmp_path / "other"))
    async with serve(sources=[own]) as live:
        names = [s["name"] for s in (await live.call("list_sources"))["sources"]]
        assert names == ["tasks", "bundled", "dicode-bundled"]
        assert await ids(live) == []
        assert "bundled/notify" in await ids(live, source="dicode-bundled")


def configured(text: str) -> Config:
    return read_config(
        text, "dicode.yaml", file=Path("/x/dicode.yaml"), environ={}, home=Path("/x")
    )


def test_the_configuration_takes_a_switch_or_overrides() -> None:
    assert configured("sources: []\n").bundled == BundledConfig()
    assert configured("bundled: false\n").bundled == BundledConfig(enabled=False)
    said = configured("bundled: {overrides: {ntfy: {params: {topic: x}}}}\n").bundled
    assert said.overrides == {"ntfy": {"params": {"topic": "x"}}}
    with pytest.raises(SpecError, match="overides"):
        configured("bundled: {overides: {}}\n")


def test_an_override_of_a_task_that_is_not_there_is_refused_with_its_line() -> None:
    with pytest.raises(SpecError) as caught:
        bundled(configured("sources: []\nbundled:\n  overrides:\n    nftty: {}\n"), [])
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.path) == (
        "dicode.yaml",
        4,
        "bundled.overrides.nftty",
    )
    assert "ntfy" in problem.hint


def test_a_wrong_override_is_told_with_its_line_of_the_configuration() -> None:
    text = "bundled:\n  overrides:\n    ntfy:\n      retri: {attempts: 3}\n"
    made = bundled(configured(text), [])
    assert made is not None
    (entry,) = [entry for entry in made.entries.entries if entry.key == "ntfy"]
    (problem,) = entry.problems
    assert (problem.file, problem.line) == ("dicode.yaml", 4)
    assert "retry" in problem.hint


def test_every_folder_that_is_a_task_is_in_the_set_or_is_an_example() -> None:
    made = bundled(Config(data_dir=Path("/x")), [])
    assert made is not None
    assert sorted(entry.key for entry in made.entries.entries) == NAMES
    folders = {path.parent for path in AGENTS.rglob("task.yaml")}
    inside = {folder.name for folder in folders if AGENTS / "examples" not in folder.parents}
    assert inside == {name.rpartition("/")[2] for name in NAMES}

"""Joins that can never come together, told as conditions; and the ones that may, left alone."""

from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.conditions import ConditionType
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.triggers.chain import ChainConditions


def follows(task_id: str, *sources: str, on: str = "success", **spec: Any) -> Task:
    return make_task(task_id, trigger={"chain": {"from": list(sources), "on": on}}, **spec)


def joins(task_id: str, *sources: str, on: str = "success", **spec: Any) -> Task:
    chain = {"from": list(sources), "on": on, "join": "all"}
    return make_task(task_id, trigger={"chain": chain}, **spec)


def starts(task_id: str, *others: str, **spec: Any) -> Task:
    return make_task(task_id, permissions={"dicode": {"tasks": list(others)}}, **spec)


async def told(*tasks: Task, **rooms_with: Any) -> tuple[str, str]:
    rooms = Rooms(**rooms_with)
    rooms.put(*tasks)
    await ChainConditions(rooms.chains, rooms.registry, rooms.bus).look()
    found = rooms.condition("end", ConditionType.READY)
    assert found is not None
    return ("", "") if found.status else (found.reason, found.message)


TOP = make_task("top")
CRON = {"cron": "0 * * * *"}

IMPOSSIBLE = {
    "two roots of their own": (
        (make_task("a", trigger=CRON), make_task("b", trigger=CRON), joins("end", "a", "b")),
        "a and b never run under one root",
    ),
    "three, of which one stands apart": (
        (
            TOP,
            follows("a", "top"),
            follows("b", "top"),
            make_task("c"),
            joins("end", "a", "b", "c"),
        ),
        "a and b and c never run under one root",
    ),
    "either end of the same run": (
        (TOP, follows("a", "top"), follows("b", "top", on="failure"), joins("end", "a", "b")),
        "top would have to end in success and in failure",
    ),
    "a source that starts on the other's failure": (
        (make_task("a"), follows("b", "a", on="failure"), joins("end", "a", "b")),
        "a would have to end in success and in failure",
    ),
    "failures of both, of which one needs a success": (
        (make_task("a"), follows("b", "a"), joins("end", "a", "b", on="failure")),
        "b starts on: success of it",
    ),
    "the failure chain of a source that has to succeed": (
        (make_task("a", on_failure_chain="b"), make_task("b"), joins("end", "a", "b")),
        "b starts on: failure of it",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_a_join_that_can_never_complete_is_an_error_on_the_task(name: str) -> None:
    tasks, words = IMPOSSIBLE[name]
    reason, message = await told(*tasks)
    assert reason == "JoinNeverCompletes"
    assert words in message
    assert message.startswith("task.yaml: trigger.chain.from: ")


POSSIBLE = {
    "a diamond": (TOP, follows("a", "top"), follows("b", "top"), joins("end", "a", "b")),
    "a source that follows the other": (
        make_task("a"),
        follows("b", "a"),
        joins("end", "a", "b"),
    ),
    "a script that may start both": (
        starts("top", "a", "b"),
        make_task("a"),
        make_task("b"),
        joins("end", "a", "b"),
    ),
    "a script that may start anything": (
        starts("top", "*"),
        make_task("a"),
        make_task("b"),
        joins("end", "a", "b"),
    ),
    "a pattern that means both": (
        starts("top", "jobs/*"),
        make_task("jobs/a"),
        make_task("jobs/b"),
        joins("end", "jobs/a", "jobs/b"),
    ),
    "a task that replays others": (
        make_task("top", permissions={"dicode": {"runs_replay": True}}),
        make_task("a"),
        make_task("b"),
        joins("end", "a", "b"),
    ),
    "either end of a task that a script may start twice": (
        starts("top", "mid"),
        make_task("mid"),
        follows("a", "mid"),
        follows("b", "mid", on="failure"),
        joins("end", "a", "b"),
    ),
    "either end, and on: always": (
        TOP,
        follows("a", "top", on="always"),
        follows("b", "top", on="failure"),
        joins("end", "a", "b"),
    ),
    "a common root two links up": (
        TOP,
        follows("left", "top"),
        follows("right", "top"),
        follows("a", "left", on="always"),
        follows("b", "right", on="failure"),
        joins("end", "a", "b"),
    ),
}


@pytest.mark.parametrize("name", POSSIBLE)
async def test_a_join_that_may_complete_is_ready(name: str) -> None:
    assert await told(*POSSIBLE[name]) == ("", "")


async def test_a_task_that_never_loaded_might_lead_to_all_so_nothing_is_claimed() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"), make_task("b"), joins("end", "a", "b"))
    rooms.put_broken("top")
    assert rooms.chains.graph().faults == {}


async def test_names_that_mean_one_task_are_no_join() -> None:
    rooms = Rooms()
    rooms.put(make_task("set/a"), joins("set/end", "a", "set/a"))
    (fault,) = rooms.chains.graph().faults["set/end"]
    assert fault.kind == "JoinSources"
    assert "all of its names mean set/a" in fault.message


async def test_a_join_that_waits_for_itself_is_a_cycle() -> None:
    reason, message = await told(TOP, follows("a", "top"), joins("end", "a", "end"))
    assert reason == "ChainCycle"
    assert "end → end" in message


async def test_a_join_with_a_source_that_is_not_there_waits_for_nothing_else() -> None:
    rooms = Rooms()
    rooms.put(TOP, follows("a", "top"), follows("b", "top"), joins("end", "a", "b", "ghost"))
    graph = rooms.chains.graph()
    assert [fault.kind for fault in graph.faults["end"]] == ["ChainSourceMissing"]
    assert graph.joined == {}


@pytest.mark.parametrize("sources", ["a", "[a]"])
def test_a_join_of_one_task_does_not_load(sources: str, tmp_path: Path) -> None:
    from dicode_mcp.spec.loader import TaskLoader
    from dicode_mcp.spec.problems import SpecError

    (tmp_path / "task.py").write_text("")
    (tmp_path / "task.yaml").write_text(
        f"name: t\nruntime: python\ntrigger:\n  chain:\n    from: {sources}\n    join: all\n"
    )
    loader = TaskLoader(
        runtimes={"python": ("task.py",)},
        environ={},
        home=tmp_path,
        data_dir=tmp_path,
        config_dir=tmp_path,
    )
    with pytest.raises(SpecError) as caught:
        loader.load(tmp_path, task_id="t", source="s", source_root=tmp_path)
    assert "task.yaml:6: trigger.chain.join: waits for all of one task" in str(caught.value)

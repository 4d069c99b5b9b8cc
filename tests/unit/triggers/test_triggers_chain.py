"""Conditions on chains: what a reader of a task sees, and where it says to look."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.triggers.chain import ChainConditions

READY = ConditionType.READY


def follows(task_id: str, *sources: str, folder: Path | None = None) -> Task:
    return make_task(task_id, folder=folder, trigger={"chain": {"from": list(sources)}})


@asynccontextmanager
async def watched(*tasks: Task) -> AsyncGenerator[Rooms]:
    rooms = Rooms()
    rooms.put(*tasks)
    async with running(ChainConditions(rooms.chains, rooms.registry, rooms.bus).run()):
        yield rooms


async def reason(rooms: Rooms, task_id: str, wanted: str, kind: ConditionType = READY) -> Condition:
    def shown() -> bool:
        condition = rooms.condition(task_id, kind)
        return condition is not None and condition.reason == wanted

    await until(shown)
    condition = rooms.condition(task_id, kind)
    assert condition is not None
    return condition


async def test_each_task_of_a_cycle_shows_the_way_round() -> None:
    async with watched(follows("a", "b"), follows("b", "a"), follows("c", "b")) as rooms:
        condition = await reason(rooms, "a", "ChainCycle")
        assert not condition.status
        assert "a → b → a" in condition.message
        assert "b → a → b" in (await reason(rooms, "b", "ChainCycle")).message
        beside = rooms.condition("c", READY)
        assert beside is not None
        assert beside.status


async def test_a_mended_cycle_is_ready_again() -> None:
    async with watched(follows("a", "b"), follows("b", "a")) as rooms:
        await reason(rooms, "a", "ChainCycle")
        rooms.put(make_task("b", "1"))
        await reason(rooms, "a", "Loaded")
        await reason(rooms, "b", "Loaded")


async def test_a_source_that_is_not_there_is_named_with_the_nearest() -> None:
    async with watched(make_task("fetch-orders"), follows("b", "fetch-order")) as rooms:
        condition = await reason(rooms, "b", "ChainSourceMissing")
        assert "'fetch-order'" in condition.message
        assert "closest: fetch-orders" in condition.message
        rooms.put(make_task("fetch-order"))
        await reason(rooms, "b", "Loaded")


async def test_the_condition_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "name: b\nruntime: python\ntrigger:\n  chain:\n    from:\n      - a\n      - ghost\n"
    )
    async with watched(make_task("a"), follows("b", "a", "ghost", folder=tmp_path)) as rooms:
        condition = await reason(rooms, "b", "ChainSourceMissing")
        assert condition.message.startswith("task.yaml:7: trigger.chain.from: ")


async def test_a_chain_written_as_one_name_has_a_line_too(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "name: b\nruntime: python\ntrigger:\n  chain:\n    from: b\n"
    )
    async with watched(follows("b", "b", folder=tmp_path)) as rooms:
        condition = await reason(rooms, "b", "ChainCycle")
        assert condition.message.startswith("task.yaml:5: trigger.chain.from: ")
        assert "b → b" in condition.message


async def test_a_failure_chain_that_is_not_there_leaves_the_task_ready() -> None:
    async with watched(make_task("a", on_failure_chain="alret"), make_task("alert")) as rooms:
        kind = ConditionType.REFERENCES
        condition = await reason(rooms, "a", "FailureChainMissing", kind)
        assert "closest: alert" in condition.message
        ready = rooms.condition("a", READY)
        assert ready is not None
        assert ready.status
        rooms.put(make_task("alret"))
        await until(lambda: rooms.condition("a", kind) is None)


async def test_several_faults_of_a_task_are_all_told() -> None:
    async with watched(follows("b", "b", "ghost", "phantom")) as rooms:
        condition = await reason(rooms, "b", "ChainCycle")
        assert "ghost" in condition.message
        assert "phantom" in condition.message


async def test_a_task_that_is_removed_and_comes_back_has_no_old_condition() -> None:
    async with watched(follows("b", "ghost")) as rooms:
        await reason(rooms, "b", "ChainSourceMissing")
        rooms.remove("b")
        await until(lambda: rooms.registry.get("b") is None)
        rooms.put(make_task("b"))
        await reason(rooms, "b", "Loaded")

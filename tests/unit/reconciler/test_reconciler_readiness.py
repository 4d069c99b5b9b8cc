"""What the log says of tasks that loaded and are found not ready by another room."""

import logging

import pytest

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.reconciler import ReadinessLog
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.waiting import running, until


def chain(fault: str) -> list[Condition]:
    return [Condition(ConditionType.READY, False, "ChainMissing", fault)]


async def test_a_fault_found_later_is_told_once_and_its_mending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dicode.reconciler")
    rooms = Rooms()
    rooms.put(make_task("a"), make_task("b"))
    rooms.registry.set_conditions("b", "chain", chain("no task 'x'\nno task 'y'"))
    async with running(ReadinessLog(rooms.registry, rooms.bus).run()):
        await until(lambda: caplog.messages == ["task/b not ready: no task 'x'; no task 'y'"])
        rooms.registry.set_conditions("b", "pause", [Condition(ConditionType.PAUSED, True, "P")])
        rooms.registry.set_conditions("a", "chain", chain("no task 'z'"))
        await until(lambda: "task/a not ready: no task 'z'" in caplog.messages)
        rooms.registry.set_conditions("a", "chain", chain("no task 'q'"))
        await until(lambda: "task/a not ready: no task 'q'" in caplog.messages)
        rooms.registry.set_conditions("a", "chain", [])
        await until(lambda: "task/a mended" in caplog.messages)
    assert len(caplog.messages) == 4


async def test_what_the_reconciler_told_is_not_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dicode.reconciler")
    rooms = Rooms()
    rooms.put_broken("a")
    log = ReadinessLog(rooms.registry, rooms.bus)
    log.look_at_all()
    rooms.put(make_task("a"))
    log.look_at_all()
    assert caplog.messages == []

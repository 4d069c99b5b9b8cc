"""Which checkouts are said to be in use."""

from __future__ import annotations

from pathlib import Path

from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.events import EventBus
from dicode_mcp.protocols import Approval
from dicode_mcp.reconciler.keeping import Keeper
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.spec.model import Task, TaskSpec
from dicode_mcp.testing.checkouts import FakeCheckouts

SPEC = TaskSpec.model_validate({"name": "x", "runtime": "python", "trigger": {"manual": True}})
READY = Condition(ConditionType.READY, True, "Loaded")
TREE, FIRST, SECOND, THIRD, FOURTH = ("0" * 40, "1" * 40, "2" * 40, "3" * 40, "4" * 40)


def task(task_id: str, revision: str) -> Task:
    folder = Path("/data/checkouts/m") / TREE / task_id
    return Task(task_id, SPEC, folder, None, "a" * 64, "s", revision)


def test_what_is_in_force_what_runs_and_what_was_approved_last_is_in_use() -> None:
    bus, clock = EventBus(), SystemClock()
    registry = Registry(bus, clock, ["s"])
    in_force = task("x", FIRST)
    gone = Entry("waits", "s", Path("/s/waits"), None, (READY,))
    registry.apply("s", [Entry("x", "s", in_force.folder, in_force, (READY,)), gone])
    approved = {
        "waits": (Approval("waits", "b" * 64, 2, "ann", THIRD), _older("waits")),
        "other": (Approval("other", "c" * 64, 1, "ann", FOURTH),),
    }
    live = [task("y", SECOND)]
    keeper = Keeper(
        FakeCheckouts(), registry, lambda: live, bus, clock, lambda i: approved.get(i, ())
    )
    assert keeper.in_use() == {FIRST, SECOND, THIRD, TREE}


def _older(task_id: str) -> Approval:
    return Approval(task_id, "d" * 64, 1, "ann", "5" * 40)

"""Who owns a name in ``/api/tasks/trigger``, and what is told to those who lost it."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.conditions import ConditionType
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.triggers.api_types import ApiTypes


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


def put(rooms: Rooms, task_id: str, digest: str = "0", **api: Any) -> None:
    rooms.put(make_task(task_id, digest, api=api) if api else make_task(task_id, digest))


def owner(types: ApiTypes, name: str) -> str | None:
    entry = types.resolve(name)
    return entry.id if entry else None


def test_a_task_is_found_by_its_type_and_always_by_its_id(rooms: Rooms) -> None:
    types = ApiTypes(rooms.registry, rooms.bus)
    put(rooms, "team/report", trigger=True, type="my-task")
    put(rooms, "other")
    assert [owner(types, name) for name in ("my-task", "team/report", "other", "none")] == [
        "team/report",
        "team/report",
        "other",
        None,
    ]
    assert types.type_of("team/report") == "my-task"
    assert types.type_of("other") == "other"
    assert types.triggerable() == ["my-task"]


def test_the_task_of_that_id_owns_a_name_then_who_held_it_then_the_first(rooms: Rooms) -> None:
    types = ApiTypes(rooms.registry, rooms.bus)
    put(rooms, "c", type="name")
    assert owner(types, "name") == "c"
    put(rooms, "b", type="name")
    assert owner(types, "name") == "c"
    assert types.type_of("b") == "b"
    put(rooms, "name")
    assert owner(types, "name") == "name"
    rooms.remove("name", "c")
    assert owner(types, "name") == "b"
    assert owner(ApiTypes(rooms.registry, rooms.bus), "name") == "b"


async def test_who_lost_a_name_is_told_until_it_is_free(rooms: Rooms) -> None:
    types = ApiTypes(rooms.registry, rooms.bus)
    put(rooms, "a", type="name")
    put(rooms, "b", type="name")
    async with running(types.run()):
        await until(lambda: rooms.condition("b", ConditionType.CONFLICT))
        told = rooms.condition("b", ConditionType.CONFLICT)
        assert told
        assert (told.status, told.reason) == (True, "ApiTypeTaken")
        assert "'name' belongs to task 'a'" in told.message
        assert rooms.condition("a", ConditionType.CONFLICT) is None
        put(rooms, "a", "1", type="another")
        await until(lambda: rooms.condition("b", ConditionType.CONFLICT) is None)
        assert owner(types, "name") == "b"


async def test_a_task_with_a_conflict_can_still_be_started_by_its_id(rooms: Rooms) -> None:
    types = ApiTypes(rooms.registry, rooms.bus)
    put(rooms, "a", trigger=True, type="name")
    put(rooms, "b", trigger=True, type="name")
    types.look()
    assert owner(types, "b") == "b"
    assert types.triggerable() == ["b", "name"]

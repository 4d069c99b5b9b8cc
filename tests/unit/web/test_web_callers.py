"""Many callers, few looks: what is shared, what is not, and who leaves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Mapping

import pytest

from dicode_mcp.executor.lineage import Lineage, Origin
from dicode_mcp.testing.waiting import DEADLINE_S, until
from dicode_mcp.web.callers import Callers


class Eye:
    """Looks when the gate is open; says of each socket that the process of its number holds it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.looks: list[set[int]] = []

    def look(self, inodes: Collection[int]) -> Mapping[int, Lineage]:
        self.looks.append(set(inodes))
        assert self.gate.wait(DEADLINE_S)
        return {inode: Lineage(Origin.CLIENT, inode) for inode in inodes}


async def test_those_who_come_while_one_is_looked_for_share_the_next_look() -> None:
    eye = Eye()
    callers = Callers(eye.look)
    eye.gate.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(callers.judge(1))
        await until(lambda: eye.looks)
        others = [group.create_task(callers.judge(2 + number % 50)) for number in range(500)]
        await asyncio.sleep(0)
        eye.gate.set()
    assert first.result().pid == 1
    assert [task.result().pid for task in others] == [2 + number % 50 for number in range(500)]
    assert eye.looks == [{1}, set(range(2, 52))]


async def test_a_look_that_has_begun_answers_nobody_who_comes_later() -> None:
    eye = Eye()
    callers = Callers(eye.look)
    await callers.judge(1)
    await callers.judge(1)
    assert eye.looks == [{1}, {1}]


async def test_a_caller_that_leaves_takes_nobody_with_it() -> None:
    eye = Eye()
    callers = Callers(eye.look)
    eye.gate.clear()
    leader = asyncio.create_task(callers.judge(1))
    await until(lambda: eye.looks)
    other = asyncio.create_task(callers.judge(2))
    await asyncio.sleep(0)
    leader.cancel()
    eye.gate.set()
    async with asyncio.timeout(DEADLINE_S):
        assert (await other).pid == 2
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_a_look_that_fails_answers_nobody_and_the_next_is_made() -> None:
    failures = iter([OSError("no"), None])

    def look(inodes: Collection[int]) -> Mapping[int, Lineage]:
        if (failure := next(failures)) is not None:
            raise failure
        return {inode: Lineage(Origin.CLIENT, inode) for inode in inodes}

    callers = Callers(look)
    with pytest.raises(OSError, match="no"):
        await callers.judge(1)
    assert (await callers.judge(1)).pid == 1


async def test_looking_takes_at_most_half_of_the_time_however_many_call() -> None:
    busy: list[float] = []

    def look(inodes: Collection[int]) -> Mapping[int, Lineage]:
        began = time.monotonic()
        end = began + 0.01
        while time.monotonic() < end:
            pass
        busy.append(time.monotonic() - began)
        return {inode: Lineage(Origin.CLIENT, inode) for inode in inodes}

    callers = Callers(look)
    began = time.monotonic()
    for _ in range(5):
        await callers.judge(1)
    # The last look has no pause behind it yet.
    assert time.monotonic() - began >= sum(busy) + sum(busy[:-1])

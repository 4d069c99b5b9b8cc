"""Live events: who sees what, what is resumed, what a slow reader misses, and one run followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import LogAppended, RunChanged, RunProgress, SourceChanged, TasksChanged
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Outcome, RunRequest, RunStatus, Trigger
from dicode_mcp.service.events import EventsService, Lines, Moved, Told, Wanted
from dicode_mcp.service.principal import Principal, local_principal
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.waiting import DEADLINE_S, running

ME = local_principal("http")


class Stage:
    """Rooms, and the service on their bus."""

    def __init__(self, ring: int = 64) -> None:
        self.rooms = Rooms()
        self.service = EventsService(
            bus=self.rooms.bus,
            store=self.rooms.store,
            clock=self.rooms.clock,
            epoch="life",
            ring=ring,
        )

    @asynccontextmanager
    async def on(self) -> AsyncGenerator[None]:
        """Let the service listen while the block lasts."""
        async with running(self.service.run()):
            await self.settled()
            yield

    def ran(self, number: int, task: str = "a") -> None:
        """Tell that a run of a task moved."""
        self.rooms.bus.publish(RunChanged(f"run{number}", task, "running"))

    async def settled(self) -> None:
        """Return once the service has taken what was published."""
        for _ in range(10):
            await asyncio.sleep(0)

    def open(
        self, *kinds: str, task: str | None = None, who: Principal = ME, resume: str | None = None
    ) -> AsyncGenerator[Told | None]:
        """Open a stream."""
        return self.service.changes(who, Wanted(frozenset(kinds), task), resume)


async def take(stream: AsyncGenerator[Any], count: int) -> list[Any]:
    """Give the next events of a stream, signs of life aside."""
    found: list[Any] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            told = await anext(stream)
            if told is not None:
                found.append(told)
    return found


async def test_changes_of_runs_tasks_and_sources_are_told_in_order() -> None:
    stage = Stage()
    async with stage.on(), aclosing(stage.open()) as stream:
        (opened,) = await take(stream, 1)
        assert (opened.event, opened.id) == ("open", "life-0")
        stage.ran(1)
        stage.rooms.bus.publish(TasksChanged(("a", "b")))
        stage.rooms.bus.publish(SourceChanged("home"))
        run, task, source = await take(stream, 3)
    assert (run.event, run.id) == ("run", "life-1")
    assert {**run.data, "at": ""} == {"run_id": "run1", "task": "a", "status": "running", "at": ""}
    assert (task.event, task.data["tasks"]) == ("task", ["a", "b"])
    assert (source.event, source.data["source"]) == ("source", "home")


async def test_a_reader_gets_only_what_it_asks_for_and_may_see() -> None:
    stage = Stage()
    narrow = Principal("key", "http", frozenset({"read"}), task_globs=("mine/*",))
    streams = {
        "narrow": stage.open(who=narrow),
        "glob": stage.open(task="mine/*"),
        "kind": stage.open("task"),
    }
    async with stage.on():
        for stream in streams.values():
            await take(stream, 1)
        stage.ran(1, "theirs/x")
        stage.rooms.bus.publish(TasksChanged(("mine/y", "theirs/x")))
        stage.ran(2, "mine/y")
        stage.rooms.bus.publish(TasksChanged(("mine/end",)))
        for name, count in (("narrow", 3), ("glob", 3), ("kind", 2)):
            told = await take(streams[name], count)
            assert [t.data["tasks"] for t in told if t.event == "task"][-1] == ["mine/end"]
            assert [t.data["task"] for t in told if t.event == "run"] == (
                [] if name == "kind" else ["mine/y"]
            )
            first = next(t for t in told if t.event == "task").data["tasks"]
            assert first == (["mine/y", "theirs/x"] if name == "kind" else ["mine/y"])
        for stream in streams.values():
            await stream.aclose()
    assert stage.service.readers == 0


async def test_who_may_not_read_is_refused_and_so_is_an_unknown_type() -> None:
    stage = Stage()
    with pytest.raises(DicodeError) as refused:
        stage.open(who=Principal("key", "http", frozenset({"run"})))
    assert refused.value.code is Code.FORBIDDEN
    with pytest.raises(DicodeError) as refused:
        stage.open("log")
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert "run=" in (refused.value.hint or "")


async def test_a_reader_that_comes_back_goes_on_where_it_was() -> None:
    stage = Stage()
    async with stage.on():
        async with aclosing(stage.open()) as stream:
            await take(stream, 1)
            stage.ran(1)
            (seen,) = await take(stream, 1)
        stage.ran(2)
        stage.ran(3)
        await stage.settled()
        async with aclosing(stage.open(resume=seen.id)) as stream:
            told = await take(stream, 3)
    assert [t.data.get("run_id") for t in told] == [None, "run2", "run3"]


@pytest.mark.parametrize(
    "resume", ["other-1", "life-99", "life-", "life-x", "7", "", "life-" + "9" * 40]
)
async def test_a_number_of_another_life_is_told_as_a_gap(resume: str) -> None:
    stage = Stage()
    async with stage.on(), aclosing(stage.open(resume=resume)) as stream:
        told = await take(stream, 2)
        assert [t.event for t in told] == ["open", "dropped"]
        assert told[1].data == {"reason": "restarted"}
        stage.ran(2)
        assert (await take(stream, 1))[0].data["run_id"] == "run2"


async def test_a_slow_reader_is_told_how_many_it_missed_and_holds_nothing() -> None:
    stage = Stage(ring=10)
    async with stage.on(), aclosing(stage.open()) as stream:
        await take(stream, 1)
        for number in range(1, 101):
            stage.ran(number)
        await stage.settled()
        dropped, *rest = await take(stream, 11)
    assert (dropped.event, dropped.data) == ("dropped", {"reason": "slow", "missed": 90})
    assert [t.data["run_id"] for t in rest] == [f"run{n}" for n in range(91, 101)]


async def test_what_others_do_does_not_count_as_missed() -> None:
    stage = Stage(ring=10)
    async with stage.on(), aclosing(stage.open(task="mine")) as stream:
        await take(stream, 1)
        waiting = asyncio.create_task(take(stream, 1))
        for number in range(100):
            stage.ran(number, "theirs")
            await stage.settled()
        stage.ran(100, "mine")
        (told,) = await waiting
    assert told.event == "run"


async def test_a_silent_stream_gives_signs_of_life_and_ends_when_closed() -> None:
    stage = Stage()
    async with stage.on(), aclosing(stage.open()) as stream:
        await take(stream, 1)
        silent = asyncio.create_task(anext(stream))
        await stage.settled()
        stage.rooms.clock.advance(15.0)
        assert await silent is None
        ending = asyncio.create_task(anext(stream, "ended"))
        await stage.settled()
        stage.service.close()
        async with asyncio.timeout(DEADLINE_S):
            assert await ending == "ended"


async def test_a_followed_run_is_given_from_its_first_line_to_its_end() -> None:
    stage = Stage()
    rooms = stage.rooms
    rooms.put(make_task("a"))
    run = await rooms.queue.submit(RunRequest(task_id="a", trigger=Trigger.CLI))

    async def log(*numbers: int) -> None:
        lines = [LogLine(n, rooms.clock.now_ms(), Level.INFO, f"line {n}") for n in numbers]
        await rooms.store.append_logs(run.id, lines)
        rooms.bus.publish(LogAppended(run.id, tuple(lines)))

    async with stage.on(), aclosing(stage.service.follow(run.id)) as stream:
        (queued,) = await take(stream, 1)
        assert isinstance(queued, Moved)
        assert queued.run.status is RunStatus.QUEUED
        claim = await rooms.queue.claim(run.id)
        assert claim is not None
        await log(*range(1, 1201))
        await stage.settled()
        told = await take(stream, 4)
        assert [one.run.status for one in told if isinstance(one, Moved)] == [RunStatus.RUNNING]
        seqs = [line.seq for part in told if isinstance(part, Lines) for line in part.lines]
        assert seqs == list(range(1, 1201))
        rooms.bus.publish(RunProgress(run.id, 1, 2, "half"))
        assert await take(stream, 1) == [RunProgress(run.id, 1, 2, "half")]
        await log(1201)
        outcome = Outcome(RunStatus.SUCCESS, rooms.clock.now_ms(), return_value="7")
        await rooms.queue.finish(claim.run, outcome)
        await stage.settled()
        lines, end = await take(stream, 2)
        assert isinstance(lines, Lines)
        assert [line.seq for line in lines.lines] == [1201]
        assert end.run.return_value == "7"
        assert await anext(stream, "ended") == "ended"
    assert stage.service.readers == 0


async def test_a_run_that_has_ended_is_given_with_the_rest_of_its_log() -> None:
    stage = Stage()
    rooms = stage.rooms
    rooms.put(make_task("a"))
    run = await rooms.queue.submit(RunRequest(task_id="a", trigger=Trigger.CLI))
    lines = [LogLine(n, 0, Level.INFO if n % 2 else Level.WARN, str(n)) for n in range(1, 6)]
    await rooms.store.append_logs(run.id, lines)
    await rooms.queue.cancel(run.id)
    async with aclosing(stage.service.follow(run.id, after=2, level=Level.WARN)) as stream:
        told = [one async for one in stream]
    assert [[line.seq for line in part.lines] for part in told if isinstance(part, Lines)] == [[4]]
    end = told[-1]
    assert isinstance(end, Moved)
    assert end.run.status is RunStatus.CANCELLED
    async with aclosing(stage.service.follow("none")) as stream:
        assert [one async for one in stream] == []


async def test_a_run_is_followed_only_by_who_sees_its_task() -> None:
    stage = Stage()
    stage.rooms.put(make_task("a"))
    run = await stage.rooms.queue.submit(RunRequest(task_id="a", trigger=Trigger.CLI))
    assert (await stage.service.run_for(ME, run.id)).id == run.id
    blind = Principal("key", "http", frozenset({"read"}), task_globs=("b",))
    for who, run_id in ((blind, run.id), (ME, "none")):
        with pytest.raises(DicodeError) as refused:
            await stage.service.run_for(who, run_id)
        assert refused.value.code is Code.RUN_NOT_FOUND

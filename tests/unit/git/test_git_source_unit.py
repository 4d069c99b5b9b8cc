"""A git source over checkouts that a test decides about, and when remotes are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.protocols import GitRef, Revision
from dicode_mcp.sources.git.failures import Failure, Reason
from dicode_mcp.sources.git.schedule import next_delay
from dicode_mcp.sources.git.source import GitSource
from dicode_mcp.testing.waiting import until

REF = GitRef("https://example.org/tasks.git", branch="main", trusted=True)
PIN = "a" * 40


class Decided:
    """Checkouts that give what a test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[GitRef, bool]] = []
        self.watched: list[GitRef] = []
        self.wakes: asyncio.Queue[None] = asyncio.Queue()
        self.condition: Condition | None = None
        self.left: tuple[str, ...] = ()

    async def latest(self, ref: GitRef, *, now: bool = False) -> Revision:
        self.asked.append((ref, now))
        return Revision("", Path("/checkout"), ref.commit or "b" * 40)

    def current(self, ref: GitRef) -> Revision | None:
        return None

    def trouble(self, ref: GitRef) -> Condition | None:
        return self.condition

    def skipped(self, ref: GitRef) -> tuple[int, tuple[str, ...]]:
        return len(self.left), self.left

    async def watch(self, ref: GitRef) -> AsyncGenerator[None]:
        self.watched.append(ref)
        while True:
            yield await self.wakes.get()

    async def push_hint(self, url: str) -> int:
        return 0

    def keep(self, revisions: Iterable[str]) -> None:
        pass


async def test_a_source_shows_its_ref_and_where_in_it_the_tasks_begin() -> None:
    checkouts = Decided()
    source = GitSource("mine", REF, checkouts, namespace="mine", start="tasks")
    revision = await source.fetch()
    assert (revision.source, revision.start, revision.commit) == ("mine", "tasks", "b" * 40)
    assert checkouts.asked == [(REF, False)]
    assert (source.kind, source.location) == ("git", "https://example.org/tasks.git")


async def test_a_pinned_source_asks_for_its_commit_and_says_so() -> None:
    checkouts = Decided()
    source = GitSource("mine", REF, checkouts, pin=PIN)
    assert (await source.fetch(now=True)).commit == PIN
    (pinned,) = source.conditions()
    assert (pinned.type, pinned.status) == (ConditionType.PINNED, True)
    assert "unpin" in pinned.message


async def test_changing_the_pin_wakes_who_listens_and_watches_the_other_ref() -> None:
    checkouts = Decided()
    source = GitSource("mine", REF, checkouts)
    changes = source.changes()
    try:
        async with asyncio.timeout(10):
            checkouts.wakes.put_nowait(None)
            assert await anext(changes) is None
            waiting = asyncio.ensure_future(_next(changes))
            await until(lambda: checkouts.watched)
            source.stay_at(PIN)
            await waiting
            checkouts.wakes.put_nowait(None)
            assert await anext(changes) is None
        assert [ref.commit for ref in checkouts.watched] == [None, PIN]
    finally:
        await changes.aclose()


async def _next(changes: AsyncGenerator[None]) -> None:
    await anext(changes)


def test_trouble_what_is_left_out_and_an_unset_secret_are_conditions() -> None:
    checkouts = Decided()
    checkouts.condition = Failure(Reason.UNREACHABLE, "away", "wait").condition()
    checkouts.left = tuple(f"link{i}: a symbolic link" for i in range(7))
    source = GitSource("mine", REF, checkouts, unset_secret="PUSH")
    found = {c.type: c for c in source.conditions()}
    assert found[ConditionType.SYNCED].message == "away; wait"
    assert "link4: a symbolic link and 2 more" in found[ConditionType.COMPLETE].message
    assert "PUSH" in found[ConditionType.PUSH].message


def test_a_location_never_shows_a_url_that_is_refused() -> None:
    ref = GitRef("https://me:hunter2@example.org/a", trusted=True)
    assert "hunter2" not in GitSource("x", ref, Decided()).location


@pytest.mark.parametrize(
    ("reason", "failures", "least", "most"),
    [
        (None, 0, 28.5, 31.5),
        (Reason.NO_SUCH_BRANCH, 3, 28.5, 31.5),
        (Reason.HOSTILE, 9, 28.5, 31.5),
        (Reason.UNREACHABLE, 1, 30, 60),
        (Reason.UNREACHABLE, 2, 60, 120),
        (Reason.UNREACHABLE, 50, 150, 300),
        (Reason.INTERNAL, 50, 150, 300),
        (Reason.AUTH_FAILED, 1, 270, 300),
        (Reason.NOT_TRUSTED, 1, 270, 300),
    ],
)
def test_a_remote_in_trouble_is_asked_less_often(
    reason: Reason | None, failures: int, least: float, most: float
) -> None:
    failure = Failure(reason, "x") if reason else None
    low, high = (next_delay(30.0, failure, failures, chance) for chance in (0.0, 1.0))
    assert (round(low, 3), round(high, 3)) == (least, most)


def test_an_interval_above_five_minutes_is_kept_in_trouble_too() -> None:
    failure = Failure(Reason.UNREACHABLE, "x")
    assert next_delay(3600.0, failure, 9, 1.0) == 3600.0

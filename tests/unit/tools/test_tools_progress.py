"""Progress values only grow, on the scale that was told first."""

from __future__ import annotations

from dicode_mcp.events import RunProgress
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.waiting import until
from dicode_mcp.tools.progress import Scale, Teller, Told


def of(done: float, total: float | None = 10, message: str = "rows") -> RunProgress:
    return RunProgress("r", done, total, message)


def test_a_task_that_counts_first_sets_the_scale() -> None:
    scale = Scale()
    assert scale.of_task(of(1), 0.5) == Told(1, 10, "rows")
    assert scale.beat(4) is None
    assert scale.of_task(of(1), 5) is None
    assert scale.of_task(of(3), 6) == Told(3, 10, "rows")
    assert scale.of_task(of(2), 7) is None


def test_after_a_beat_values_are_seconds_and_the_task_is_heard_in_words() -> None:
    scale = Scale()
    assert scale.beat(4) == Told(4, None, "still running after 4 s")
    assert scale.of_task(of(1), 5) == Told(5, None, "1/10 rows")
    assert scale.of_task(of(2.5, None, ""), 6) == Told(6, None, "2.5")
    assert scale.beat(8) == Told(8, None, "still running after 8 s")


async def test_a_waiting_caller_hears_a_beat_until_the_wait_ends() -> None:
    heard: list[Told] = []
    clock = FakeClock()

    async def report(done: float, total: float | None, message: str | None) -> None:
        heard.append(Told(done, total, message or ""))
        clock.advance(1)

    teller = Teller(report, clock, every_s=0.01)
    clock.advance(1)
    async with teller.beating():
        await until(lambda: len(heard) >= 3)
    count = len(heard)
    assert [told.done for told in heard[:3]] == [1, 2, 3]
    await teller.on_told(of(9))
    assert len(heard) == count + 1
    assert heard[-1].message == "9/10 rows"


async def test_a_caller_that_cannot_be_told_does_not_end_the_wait() -> None:
    async def report(done: float, total: float | None, message: str | None) -> None:
        raise ConnectionError

    clock = FakeClock()
    clock.advance(1)
    reached = False
    async with Teller(report, clock, every_s=0).beating():
        await until(lambda: True)
        reached = True
    assert reached

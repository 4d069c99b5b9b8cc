from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from dicode_mcp.clock import parse_iso
from dicode_mcp.triggers.catchup import MOST_CAUGHT_UP, Catchup, Fire, settle
from dicode_mcp.triggers.schedule import Schedule

HOURLY = Schedule("0 * * * *", ZoneInfo("UTC"))
MINUTELY = Schedule("* * * * *", ZoneInfo("UTC"))
NOON = parse_iso("2026-01-01T12:00Z")
MINUTE = 60_000
HOUR = 60 * MINUTE


@pytest.mark.parametrize("catchup", ["skip", "one", "all"])
def test_a_slot_that_is_on_time_is_no_catch_up(catchup: Catchup) -> None:
    for late in (0, 1, 60_000):
        got = settle(HOURLY, "t", last_ms=NOON - 1, now_ms=NOON + late, catchup=catchup)
        assert (got.fires, got.upto_ms, got.missed) == ((Fire(NOON),), NOON, 0)


@pytest.mark.parametrize("catchup", ["skip", "one", "all"])
def test_nothing_due_settles_nothing(catchup: Catchup) -> None:
    got = settle(HOURLY, "t", last_ms=NOON, now_ms=NOON + HOUR - 1, catchup=catchup)
    assert (got.fires, got.upto_ms) == ((), None)


def test_a_slot_more_than_a_minute_late_was_missed() -> None:
    def fires(catchup: Catchup) -> tuple[Fire, ...]:
        now = NOON + 60_001
        got = settle(HOURLY, "t", last_ms=NOON - 1, now_ms=now, catchup=catchup)
        assert got.upto_ms == NOON
        return got.fires

    assert fires("skip") == ()
    assert fires("one") == (Fire(NOON, catchup=True),)
    assert fires("all") == (Fire(NOON, catchup=True),)


def test_one_stands_for_all_that_was_missed_even_with_a_slot_on_time() -> None:
    got = settle(HOURLY, "t", last_ms=NOON - 5 * HOUR, now_ms=NOON + 1000, catchup="one")
    assert got.fires == (Fire(NOON, catchup=True),)


def test_skip_runs_only_what_is_on_time() -> None:
    got = settle(HOURLY, "t", last_ms=NOON - 5 * HOUR, now_ms=NOON + 1000, catchup="skip")
    assert got.fires == (Fire(NOON),)
    assert got.missed


def test_all_runs_each_in_order_and_marks_the_late_ones() -> None:
    got = settle(HOURLY, "t", last_ms=NOON - 3 * HOUR, now_ms=NOON + 1000, catchup="all")
    assert got.fires == (
        Fire(NOON - 2 * HOUR, catchup=True),
        Fire(NOON - HOUR, catchup=True),
        Fire(NOON),
    )
    assert not got.dropped


def test_all_is_bounded_keeps_the_newest_and_says_so() -> None:
    got = settle(MINUTELY, "t", last_ms=NOON - 30 * 24 * HOUR, now_ms=NOON, catchup="all")
    late = [fire for fire in got.fires if fire.catchup]
    assert len(late) == MOST_CAUGHT_UP
    assert got.dropped
    assert all(b.slot_ms - a.slot_ms == MINUTE for a, b in pairwise(got.fires))
    assert got.fires[-1] == Fire(NOON)
    assert got.upto_ms == NOON


def test_exactly_as_many_as_the_bound_drop_nothing() -> None:
    last = NOON - (MOST_CAUGHT_UP + 2) * MINUTE
    got = settle(MINUTELY, "t", last_ms=last, now_ms=NOON, catchup="all")
    assert sum(fire.catchup for fire in got.fires) == MOST_CAUGHT_UP
    assert not got.dropped


def test_lateness_counts_from_the_delayed_start() -> None:
    schedule = Schedule("0 * * * *", ZoneInfo("UTC"), 1800)
    due = schedule.due("t", NOON)
    assert due > NOON
    early = settle(schedule, "t", last_ms=NOON - 1, now_ms=due - 1, catchup="skip")
    assert early.upto_ms is None
    prompt = settle(schedule, "t", last_ms=NOON - 1, now_ms=due + 60_000, catchup="skip")
    assert prompt.fires == (Fire(NOON),)
    late = settle(schedule, "t", last_ms=NOON - 1, now_ms=due + 60_001, catchup="skip")
    assert (late.fires, late.upto_ms) == ((), NOON)


def test_years_of_minutes_are_settled_at_once() -> None:
    for catchup in ("skip", "one", "all"):
        got = settle(MINUTELY, "t", last_ms=0, now_ms=NOON + 1, catchup=catchup)
        assert got.upto_ms == NOON

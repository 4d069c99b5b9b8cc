"""Properties of schedules over many expressions, zones and instants, checked by brute force."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest

from dicode_mcp.clock import parse_iso
from dicode_mcp.triggers.pattern import read_pattern
from dicode_mcp.triggers.schedule import Schedule

MINUTE = 60_000
DAY = 24 * 60 * MINUTE

EXPRESSIONS = (
    "* * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "15,45 1-3 * * *",
    "0 0 * * *",
    "59 23 * * 6",
    "0 12 13 * FRI",
    "5 4 */10 * *",
    "@daily",
)
CHANGES = (
    ("Europe/Berlin", "2026-03-29T01:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("America/New_York", "2026-03-08T07:00Z"),
    ("America/New_York", "2026-11-01T06:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
    ("America/Santiago", "2026-04-05T03:00Z"),
    ("America/Santiago", "2026-09-06T04:00Z"),
    ("Africa/Cairo", "2026-04-23T22:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00Z"),
    ("Africa/Casablanca", "2026-02-15T02:00Z"),
    ("UTC", "2026-12-31T23:59Z"),
)


def walked(expression: str, zone: ZoneInfo, start_ms: int, minutes: int) -> list[int]:
    """Find the slots the slow way: walk over instants, and note each wall-clock time when it
    is first shown, and each skipped one at the instant that skips it.
    """
    pattern = read_pattern(expression)
    times = frozenset(pattern.times)

    def matches(local: datetime) -> bool:
        if local.hour * 60 + local.minute not in times or local.month not in pattern.months:
            return False
        by_date = local.day in pattern.days
        by_weekday = local.isoweekday() % 7 in pattern.weekdays
        return by_date or by_weekday if pattern.either_day else by_date and by_weekday

    before = 3 * 60  # No zone is put back by more.
    shown = datetime.fromtimestamp(start_ms / 1000 - before * 60, zone)
    shown = shown.replace(tzinfo=None, fold=0)
    found: list[int] = []
    for minute in range(-before, minutes + 1):
        instant = start_ms + minute * MINUTE
        local = datetime.fromtimestamp(instant / 1000, zone).replace(tzinfo=None, fold=0)
        hit = False
        while shown < local:
            shown += timedelta(minutes=1)
            hit = hit or matches(shown)
        if hit and instant > start_ms:
            found.append(instant)
    return found


def slots(schedule: Schedule, start_ms: int, end_ms: int) -> Iterator[int]:
    slot = schedule.after(start_ms)
    while slot is not None and slot <= end_ms:
        yield slot
        slot = schedule.after(slot)


@pytest.mark.parametrize(("zone", "change"), CHANGES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_slots_around_a_change_of_the_clock_are_those_of_a_wall_clock_that_is_watched(
    expression: str, zone: str, change: str
) -> None:
    start = parse_iso(change) - DAY // 4
    schedule = Schedule(expression, ZoneInfo(zone))
    expected = walked(expression, ZoneInfo(zone), start, 1440)
    assert list(slots(schedule, start, start + DAY)) == expected


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_looking_back_gives_the_same_slots_as_looking_ahead(zone: str, change: str) -> None:
    first, last = parse_iso(change) - DAY // 4, parse_iso(change) + DAY // 4
    for expression in EXPRESSIONS:
        schedule = Schedule(expression, ZoneInfo(zone))
        ahead = list(slots(schedule, first, last))
        back = list(takewhile(lambda slot: slot > first, schedule.before(last)))
        assert back[::-1] == ahead


def test_slots_only_go_forward_from_any_instant() -> None:
    chance = random.Random(7)
    for _ in range(150):
        zone, change = chance.choice(CHANGES)
        schedule = Schedule(chance.choice(EXPRESSIONS), ZoneInfo(zone))
        instant = parse_iso(change) + chance.randrange(-2 * DAY, 2 * DAY)
        coming = list(islice(slots(schedule, instant, instant + 400 * DAY), 20))
        assert coming[0] > instant
        assert all(a < b for a, b in pairwise(coming))
        latest = schedule.latest(coming[0])
        assert latest == coming[0]
        before = schedule.latest(coming[0] - 1)
        assert before is not None
        assert schedule.after(before) == coming[0]


def test_a_date_that_never_comes_has_no_slot() -> None:
    schedule = Schedule("0 0 30 2 *", ZoneInfo("UTC"))
    assert schedule.after(parse_iso("2026-01-01T00:00Z")) is None
    assert schedule.latest(parse_iso("2026-01-01T00:00Z")) is None


def test_the_ends_of_the_calendar_are_no_error() -> None:
    schedule = Schedule("0 0 1 1 *", ZoneInfo("Europe/Berlin"))
    assert schedule.after(parse_iso("9990-01-01T00:00Z")) is None
    early = int(datetime(2, 6, 1, tzinfo=UTC).timestamp() * 1000)
    assert len(list(islice(Schedule("0 0 1 * *", ZoneInfo("UTC")).before(early), 100))) < 100


def test_jitter_is_the_same_on_every_server_and_stays_before_the_next_slot() -> None:
    schedule = Schedule("*/5 * * * *", ZoneInfo("UTC"), 3600)
    start = parse_iso("2026-01-01T00:00Z")
    delays: set[int] = set()
    for slot in islice(slots(schedule, start, start + DAY), 100):
        due = schedule.due("a/b", slot)
        assert due == Schedule("*/5 * * * *", ZoneInfo("UTC"), 3600).due("a/b", slot)
        assert slot <= due < slot + 5 * MINUTE
        delays.add(due - slot)
    assert len(delays) > 90


def test_jitter_spreads_tasks_of_the_same_slot_over_its_bound() -> None:
    schedule = Schedule("0 0 * * *", ZoneInfo("UTC"), 600)
    slot = parse_iso("2026-01-01T00:00Z")
    delays = sorted(schedule.due(f"task-{n}", slot) - slot for n in range(500))
    assert 0 <= delays[0] < 20_000
    assert 580_000 < delays[-1] <= 600_000


def test_without_jitter_a_task_starts_at_its_slot() -> None:
    assert Schedule("0 0 * * *", ZoneInfo("UTC")).due("t", 86_400_000) == 86_400_000

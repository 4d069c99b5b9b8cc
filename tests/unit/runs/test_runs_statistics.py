"""Sums of runs: how near the percentiles are, and that they can be added up in any order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dicode_mcp.runs.model import Run, RunStatus, Trigger
from dicode_mcp.runs.statistics import (
    DAY_MS,
    Durations,
    Tally,
    bucket_of,
    day_of,
    durations_of,
    tally_of,
    together,
)


def exact(values: list[int], share: float) -> int:
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(values) // 1000) - 1)]


SHAPES: dict[str, Callable[[Random], float]] = {
    "even": lambda random: random.randint(1, 60_000),
    "long tail": lambda random: round(random.lognormvariate(5, 2)) + 1,
    "two humps": lambda random: random.choice([random.gauss(40, 5), random.gauss(9_000, 900)]),
    "days": lambda random: random.randint(DAY_MS, 30 * DAY_MS),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_percentiles_are_within_five_percent(
    shape: Callable[[Random], float], share: float
) -> None:
    random = Random(7)
    values = [max(1, round(shape(random))) for _ in range(2_000)]
    found = durations_of(values).quantile(share)
    wanted = exact(values, share)
    assert found is not None
    # Below some ms the whole number nearest to a bucket's middle is all there is.
    assert abs(found - wanted) <= max(1, 0.0501 * wanted)


@pytest.mark.parametrize("ms", [0, 1, 2, 3, 5, 8])
def test_a_few_milliseconds_are_told_exactly(ms: int) -> None:
    assert durations_of([ms] * 10).quantile(0.95) == ms


def test_every_duration_has_a_bucket_and_longer_ones_no_lower() -> None:
    tries = [*range(2_000), *(10**n for n in range(4, 14))]
    buckets = [bucket_of(ms) for ms in tries]
    assert buckets == sorted(buckets)
    assert all(0 <= bucket <= 260 for bucket in buckets)


def test_nothing_measured_has_no_percentile() -> None:
    assert Durations().quantile(0.5) is None


def test_histograms_add_up_to_that_of_all() -> None:
    random = Random(1)
    parts = [[random.randint(0, 9_999) for _ in range(random.randint(0, 50))] for _ in range(9)]
    every = durations_of(itertools.chain(*parts))
    for order in (parts, parts[::-1]):
        added = Durations()
        for part in order:
            added = added.plus(durations_of(part))
        assert dict(added.counts) == dict(every.counts)
    assert dict(Durations.from_bytes(every.to_bytes()).counts) == dict(every.counts)
    assert Durations.from_bytes(Durations().to_bytes()) == Durations()


def a_run(status: RunStatus, **changes: Any) -> Run:
    return Run("r", "t", status, Trigger.MCP, 0, **changes)


def test_a_run_is_tallied_by_its_end() -> None:
    lasted = a_run(RunStatus.TIMEOUT, started_at_ms=5, finished_at_ms=105, cpu_ms=40, tokens=7)
    skipped = a_run(RunStatus.SKIPPED, finished_at_ms=9)
    found = together([tally_of(lasted), tally_of(skipped), tally_of(lasted)])
    assert found == Tally(
        {RunStatus.TIMEOUT: 2, RunStatus.SKIPPED: 1}, 200, 80, 14, durations_of([100, 100])
    )
    assert (found.runs, found.failures) == (3, 2)


def test_a_day_is_utc() -> None:
    assert [day_of(ms) for ms in (0, DAY_MS - 1, DAY_MS, -1)] == [0, 0, 1, -1]

"""Whether a run is tried again and when, without a queue."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from dicode_mcp.runs.model import Reason, Run, RunError, RunStatus, Trigger
from dicode_mcp.runs.retry import CLASSES, NEVER, REASONS, again, next_attempt, too_late
from dicode_mcp.spec.model import RetrySpec
from dicode_mcp.testing.rooms import make_task

NOW = 1_000_000
FAILED = Run(
    "r1",
    "t",
    RunStatus.FAILURE,
    Trigger.CRON,
    NOW - 5_000,
    started_at_ms=NOW - 4_000,
    finished_at_ms=NOW,
    reason=Reason.SCRIPT_ERROR,
    error=RunError("script_error", "boom"),
    root_run_id="root",
    parent_run_id="parent",
    actor="chain:up",
    chain_depth=3,
    priority=7,
    slot_ms=NOW,
)


class Highest(Random):
    """Chance at its most, so that the longest wait is seen."""

    def random(self) -> float:
        return 0.999_999_999


def spec(**fields: Any) -> RetrySpec:
    return RetrySpec.model_validate({"attempts": 5, **fields})


def waits(run: Run, rule: RetrySpec) -> int | None:
    found = again(run, rule, Highest())
    return None if found is None else found.not_before_ms - NOW


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 2), (2, 4), (3, 8), (4, 10), (5, None), (9, None)]
)
def test_the_longest_wait_doubles_up_to_its_limit_until_the_attempts_are_spent(
    attempt: int, seconds: int | None
) -> None:
    rule = spec(backoff="2s", max_backoff="10s")
    wait = waits(replace(FAILED, attempt=attempt), rule)
    assert (wait is None) if seconds is None else wait == pytest.approx(seconds * 1000, abs=2)


def test_waits_are_spread_over_all_of_the_time_from_none() -> None:
    rule, random = spec(backoff="10s"), Random(7)
    found = [again(FAILED, rule, random) for _ in range(400)]
    drawn = sorted(when.not_before_ms - NOW for when in found if when is not None)
    assert len(drawn) == 400
    assert drawn[0] < 300
    assert drawn[-1] > 9_700
    assert 4_000 < sum(drawn) / 400 < 6_000


@pytest.mark.parametrize(
    ("status", "reason", "on", "tried"),
    [
        (RunStatus.FAILURE, Reason.EXIT_CODE, ["failure"], True),
        (RunStatus.FAILURE, Reason.EXIT_CODE, ["timeout"], False),
        (RunStatus.FAILURE, Reason.EXIT_CODE, ["exit_code"], True),
        (RunStatus.FAILURE, Reason.SIGNAL, ["exit_code", "timeout"], False),
        (RunStatus.TIMEOUT, Reason.TIMEOUT, ["timeout"], True),
        (RunStatus.TIMEOUT, Reason.TIMEOUT, ["failure", "lost"], False),
        (RunStatus.TIMEOUT, Reason.ANSWER_TIMEOUT, ["timeout"], False),
        (RunStatus.LOST, Reason.SERVER_CRASHED, ["lost"], True),
        (RunStatus.LOST, Reason.SERVER_CRASHED, ["failure"], False),
        (RunStatus.CANCELLED, Reason.SHUTDOWN, ["lost"], True),
        (RunStatus.CANCELLED, Reason.CANCELLED, list(CLASSES), False),
        (RunStatus.SKIPPED, Reason.OVERLAP, list(CLASSES), False),
        (RunStatus.SUCCESS, None, list(CLASSES), False),
    ],
)
def test_only_the_ends_that_are_named_are_tried_again(
    status: RunStatus, reason: Reason | None, on: list[str], tried: bool
) -> None:
    error = RunError(reason, "x") if reason else None
    run = replace(FAILED, status=status, reason=reason, error=error)
    assert (waits(run, spec(on=on)) is not None) is tried


@pytest.mark.parametrize("reason", sorted(NEVER))
def test_what_a_repetition_cannot_mend_is_never_tried_again(reason: Reason) -> None:
    run = replace(FAILED, reason=reason, error=RunError(reason, "x"))
    assert waits(run, spec(on=["failure"])) is None
    with pytest.raises(ValueError, match="never tried again"):
        spec(on=[reason.value])


@pytest.mark.parametrize("trigger", [Trigger.TEST, Trigger.DAEMON])
def test_tests_and_daemons_are_not_tried_again_by_this(trigger: Trigger) -> None:
    assert waits(replace(FAILED, trigger=trigger), spec()) is None


def test_every_reason_of_a_failure_is_either_tried_again_or_never() -> None:
    assert not NEVER & set(REASONS)
    for reason in REASONS:
        run = replace(FAILED, reason=reason, error=RunError(reason, "x"))
        assert waits(run, spec(on=[reason.value])) is not None


def test_a_deadline_counts_from_the_first_start_and_shortens_the_last_wait() -> None:
    rule = spec(backoff="1m", deadline="10s")
    when = again(FAILED, rule, Highest())
    assert when is not None
    assert when.until_ms == NOW - 4_000 + 10_000
    assert NOW < when.not_before_ms <= when.until_ms
    second = replace(FAILED, attempt=2, retry_until_ms=when.until_ms)
    assert waits(replace(second, finished_at_ms=when.until_ms), rule) is None
    assert waits(second, spec(backoff="1m", deadline="1h")) == pytest.approx(6_000, abs=2)


def test_the_next_attempt_is_the_same_wish_by_the_version_in_force() -> None:
    when = again(FAILED, spec(backoff="2s", deadline="1m"), Highest())
    assert when is not None
    run = next_attempt(FAILED, when, make_task("t", "a"))
    assert (run.task_id, run.status, run.trigger) == ("t", RunStatus.QUEUED, Trigger.RETRY)
    assert (run.retry_of, run.attempt, run.idempotency_key) == ("r1", 2, "retry:r1")
    assert (run.root_run_id, run.parent_run_id, run.actor) == ("root", "parent", "chain:up")
    assert (run.chain_depth, run.priority, run.task_hash) == (3, 7, "a" * 64)
    assert (run.not_before_ms, run.retry_until_ms) == (when.not_before_ms, when.until_ms)
    assert run.slot_ms is None


def test_an_attempt_whose_turn_comes_after_the_deadline_is_not_begun() -> None:
    run = replace(FAILED, attempt=2, retry_of="r1", retry_until_ms=NOW)
    assert too_late(run, NOW) is None
    assert too_late(FAILED, NOW + 10**9) is None
    end = too_late(run, NOW + 1)
    assert end is not None
    assert (end.status, end.reason) == (RunStatus.FAILURE, Reason.RETRY_DEADLINE)
    assert end.error is not None
    assert "run r1" in end.error.message

"""What is told of a task's ends, decided without a queue or a store."""

from dataclasses import replace

import pytest

from dicode_mcp.runs.model import Reason, Run, RunError, RunStatus, Trigger
from dicode_mcp.runs.notices import (
    DAY_MS,
    MAX_CHANGES,
    TELL_AGAIN_MS,
    Notice,
    NoticeEvent,
    NoticeRules,
    NoticeState,
    decide,
    delivered,
    fingerprint,
    notice_input,
    sentence,
)
from dicode_mcp.testing.clock import START_MS

RULES = NoticeRules()
CLEAN = NoticeState("backup")


def ended(
    status: RunStatus = RunStatus.FAILURE,
    message: str = "no luck",
    after_ms: int = 0,
    code: str = "script_error",
) -> Run:
    error = None if status is RunStatus.SUCCESS else RunError(code, message)
    return Run(
        "r1",
        "backup",
        status,
        Trigger.CRON,
        START_MS,
        started_at_ms=START_MS + after_ms - 1500,
        finished_at_ms=START_MS + after_ms,
        reason=None if error is None else code,
        error=error,
    )


def live(*runs: Run, rules: NoticeRules = RULES, state: NoticeState = CLEAN) -> list[str]:
    """Give what is told of each end, ``-`` for nothing."""
    told: list[str] = []
    for run in runs:
        state, notice = decide(state, run, rules)
        told.append(notice.event.value if notice else "-")
    return told


OK = ended(RunStatus.SUCCESS)


def test_a_failure_is_told_once_and_its_end_too() -> None:
    assert live(OK, ended(), ended(), ended(), OK, OK) == [
        "-",
        "first_failure",
        "-",
        "-",
        "recovery",
        "-",
    ]


def test_a_task_that_never_succeeded_is_told_with_its_first_failure() -> None:
    assert live(ended(RunStatus.TIMEOUT)) == ["first_failure"]


def test_a_storm_of_equal_failures_is_one_notice_whatever_numbers_are_in_them() -> None:
    storm = [ended(message=f"job {n} of 0x{n:06x} took {n}.5s at 12:00:{n:02d}") for n in range(60)]
    assert live(*storm) == ["first_failure"] + ["-"] * 59


@pytest.mark.parametrize(
    "other",
    [
        ended(message="other words"),
        ended(code="exit_code"),
        ended(RunStatus.TIMEOUT),
        ended(RunStatus.LOST),
    ],
)
def test_another_failure_is_told_and_the_old_one_is_not_told_again(other: Run) -> None:
    assert live(ended(), other, ended(), other) == ["first_failure", "changed_failure", "-", "-"]


def test_http_statuses_are_different_failures() -> None:
    first, second = ended(message="HTTP 500"), ended(message="HTTP 404")
    assert fingerprint(first) != fingerprint(second)
    assert live(first, second) == ["first_failure", "changed_failure"]


def test_failures_that_always_differ_come_to_an_end() -> None:
    words = [ended(message="x" * n) for n in range(1, 40)]
    told = live(*words)
    assert told.count("changed_failure") == MAX_CHANGES - 1
    assert set(told[MAX_CHANGES:]) == {"-"}


def test_what_still_fails_is_told_again_after_the_reminder_and_not_before() -> None:
    early, late = ended(after_ms=DAY_MS - 1), ended(after_ms=DAY_MS)
    again = ended(after_ms=DAY_MS + 1)
    assert live(ended(), early, late, again) == ["first_failure", "-", "reminder", "-"]
    assert live(ended(), late, rules=replace(RULES, reminder_ms=None)) == ["first_failure", "-"]


def test_ends_that_say_nothing_of_the_task_change_nothing() -> None:
    for status in (RunStatus.CANCELLED, RunStatus.SKIPPED):
        assert decide(CLEAN, ended(status), RULES) == (CLEAN, None)
        assert live(ended(), ended(status), ended(), OK) == ["first_failure", "-", "-", "recovery"]


def test_successes_are_told_when_wanted_and_a_recovery_goes_before() -> None:
    rules = NoticeRules(on_success=True)
    assert live(OK, OK, ended(), OK, rules=rules) == [
        "success",
        "success",
        "first_failure",
        "recovery",
    ]
    quiet = NoticeRules(on_success=True, on_failure=False)
    assert live(ended(), OK, rules=quiet) == ["-", "success"]


def test_a_notice_that_did_not_get_through_is_tried_again_but_not_at_every_failure() -> None:
    state, notice = decide(CLEAN, ended(), RULES)
    assert notice is not None
    lost = delivered(state, replace(ended(message="no network"), id="n1"))
    assert (lost.undelivered, lost.delivery_run_id, lost.delivery_error) == (1, "n1", "no network")
    soon, later = ended(after_ms=TELL_AGAIN_MS - 1), ended(after_ms=TELL_AGAIN_MS)
    assert live(soon, later, state=lost) == ["-", "first_failure"]
    assert live(OK, state=lost) == ["recovery"]
    assert delivered(lost, ended(RunStatus.SUCCESS)) == state


def test_the_input_of_the_delivering_task_says_it_all() -> None:
    state = CLEAN
    for _ in range(3):
        state, _ = decide(state, ended(), RULES)
    run = ended(message="disk full\nno bytes left", after_ms=DAY_MS)
    _, notice = decide(state, run, RULES)
    assert notice is not None
    assert notice_input(notice, run, "Backup", "https://dicode.example/runs/r1") == {
        "event": "reminder",
        "task": {"id": "backup", "name": "Backup"},
        "run": {
            "run_id": "r1",
            "status": "failure",
            "reason": Reason.SCRIPT_ERROR,
            "trigger": "cron",
            "attempt": 1,
            "started_at": "2026-01-01T23:59:58.500Z",
            "finished_at": "2026-01-02T00:00:00.000Z",
            "duration_ms": 1500,
        },
        "error": {"code": "script_error", "message": "disk full\nno bytes left"},
        "since": "2026-01-01T00:00:00.000Z",
        "count": 4,
        "url": "https://dicode.example/runs/r1",
        "text": "backup still fails (4 runs since 2026-01-01 00:00 UTC): disk full no bytes left",
    }


@pytest.mark.parametrize(
    ("notice", "text"),
    [
        (Notice(NoticeEvent.FIRST_FAILURE, START_MS, 1), "backup failed: no luck"),
        (
            Notice(NoticeEvent.CHANGED_FAILURE, START_MS, 2),
            "backup now fails in another way: no luck",
        ),
        (
            Notice(NoticeEvent.RECOVERY, START_MS, 1),
            "backup works again, after 1 failed run since 2026-01-01 00:00 UTC",
        ),
        (Notice(NoticeEvent.SUCCESS), "backup succeeded in 1.5 s"),
    ],
)
def test_a_notice_is_one_short_sentence(notice: Notice, text: str) -> None:
    assert sentence(notice, ended()) == text


def test_long_errors_are_cut() -> None:
    notice = Notice(NoticeEvent.FIRST_FAILURE, START_MS, 1)
    given = notice_input(notice, ended(message="x" * 100_000), "Backup", None)
    assert len(given["error"]["message"]) == 1000
    assert len(given["text"]) < 400

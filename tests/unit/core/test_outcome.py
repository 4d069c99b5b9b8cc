import pytest

from dicode_mcp.outcome import decide
from dicode_mcp.protocols import Exit, Report
from dicode_mcp.runs.model import Reason, RunError, RunStatus

FINISHED = Report(finished=True, return_value="1")
RAISED = Report(error=RunError("script_error", "boom", file="task.py", line=3))


@pytest.mark.parametrize(
    ("exit", "report", "stop", "status", "reason"),
    [
        (Exit(0, None), FINISHED, None, RunStatus.SUCCESS, None),
        (Exit(0, None), Report(), None, RunStatus.FAILURE, Reason.EXITED_EARLY),
        (Exit(3, None), FINISHED, None, RunStatus.FAILURE, Reason.EXIT_CODE),
        (Exit(1, None), RAISED, None, RunStatus.FAILURE, Reason.SCRIPT_ERROR),
        (Exit(None, 11), FINISHED, None, RunStatus.FAILURE, Reason.SIGNAL),
        (Exit(None, 9, timed_out=True), Report(), None, RunStatus.TIMEOUT, Reason.TIMEOUT),
        (
            Exit(None, 15, stopped=True),
            Report(),
            Reason.CANCELLED,
            RunStatus.CANCELLED,
            Reason.CANCELLED,
        ),
        (
            Exit(None, 15, stopped=True),
            Report(),
            Reason.SHUTDOWN,
            RunStatus.CANCELLED,
            Reason.SHUTDOWN,
        ),
    ],
)
def test_the_end_of_a_run_has_one_stated_reason(
    exit: Exit, report: Report, stop: Reason | None, status: RunStatus, reason: Reason | None
) -> None:
    outcome = decide(exit, report, now_ms=5, stop_reason=stop, timeout_s=2)
    assert (outcome.status, outcome.reason, outcome.finished_at_ms) == (status, reason, 5)
    assert (outcome.error is None) == (status is RunStatus.SUCCESS)


def test_a_run_that_ended_by_itself_before_the_cancel_came_keeps_its_result() -> None:
    outcome = decide(Exit(0, None), FINISHED, now_ms=1, stop_reason=Reason.CANCELLED)
    assert (outcome.status, outcome.return_value) == (RunStatus.SUCCESS, "1")


def test_a_failed_run_gives_no_return_value() -> None:
    assert decide(Exit(2, None), FINISHED, now_ms=1).return_value is None


def test_the_runtime_may_say_what_a_signal_means() -> None:
    told = RunError("signal", "out of memory")
    assert decide(Exit(None, 9), Report(), now_ms=1, explained=told).error == told


def test_a_timeout_names_its_limit() -> None:
    outcome = decide(Exit(None, 9, timed_out=True), Report(), now_ms=1, timeout_s=90)
    assert outcome.error is not None
    assert "1m30s" in outcome.error.message


def test_a_value_outside_the_output_schema_fails_without_being_shown() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    good = Report(finished=True, return_value='{"n": 1}')
    bad = Report(finished=True, return_value='{"n": "hunter2"}')
    assert decide(Exit(0, None), good, now_ms=1, output_schema=schema).status is RunStatus.SUCCESS
    outcome = decide(Exit(0, None), bad, now_ms=1, output_schema=schema)
    assert outcome.reason is Reason.OUTPUT_SCHEMA
    assert outcome.error is not None
    assert "$.n" in outcome.error.message
    assert "hunter2" not in outcome.error.message

"""What follows the end of a run (SPEC 3.5), decided from values alone."""

from dataclasses import replace
from typing import Any

import pytest

from dicode_mcp.runs.follow_ups import (
    MAX_CHAIN_DEPTH,
    chain_input,
    chain_matches,
    chain_requests,
    depth_error,
    failure_request,
)
from dicode_mcp.runs.model import Reason, Run, RunError, RunStatus, Trigger

ENDED = Run(
    "run1",
    "up",
    RunStatus.SUCCESS,
    Trigger.MANUAL,
    1000,
    finished_at_ms=2000,
    return_value='{"n": 1}',
    root_run_id="root",
    chain_depth=3,
)
FAILED = replace(
    ENDED,
    status=RunStatus.FAILURE,
    return_value=None,
    reason=Reason.SCRIPT_ERROR,
    error=RunError("script_error", "division by zero", "look at line 3", traceback="secret"),
)


@pytest.mark.parametrize(
    ("on", "followed"),
    [
        ("success", {"success"}),
        ("failure", {"failure", "timeout", "lost"}),
        ("always", {"success", "failure", "timeout", "lost"}),
    ],
)
def test_which_ends_a_chain_follows(on: str, followed: set[str]) -> None:
    assert {status.value for status in RunStatus if chain_matches(on, status)} == followed


@pytest.mark.parametrize(
    ("run", "on", "expected"),
    [
        (ENDED, "success", {"n": 1}),
        (ENDED, "always", {"n": 1}),
        (replace(ENDED, return_value="null"), "success", None),
        (replace(ENDED, return_value="0"), "always", 0),
        (replace(ENDED, return_value=None), "success", None),
        (
            replace(ENDED, return_value=None),
            "always",
            {"status": "success", "error": None, "returnValue": None},
        ),
        (
            FAILED,
            "failure",
            {
                "status": "failure",
                "error": {"code": "script_error", "message": "division by zero"},
                "returnValue": None,
            },
        ),
        (
            replace(FAILED, status=RunStatus.TIMEOUT, error=None),
            "always",
            {"status": "timeout", "error": None, "returnValue": None},
        ),
    ],
)
def test_the_input_of_a_chained_run(run: Run, on: str, expected: Any) -> None:
    assert chain_input(run, on) == expected


def test_a_chained_request_knows_where_it_comes_from() -> None:
    (request,) = chain_requests(ENDED, [("down", "success"), ("sad", "failure")])
    assert (request.task_id, request.trigger) == ("down", Trigger.CHAIN)
    assert (request.parent_run_id, request.root_run_id) == ("run1", "root")
    assert request.chain_depth == 4
    assert request.actor == "chain:up"
    assert request.idempotency_key == "chain:run1"
    assert not request.strict_params


def test_one_end_starts_every_task_that_follows() -> None:
    requests = chain_requests(ENDED, [(f"d{n}", "always") for n in range(5)])
    assert [request.task_id for request in requests] == ["d0", "d1", "d2", "d3", "d4"]


def test_the_failure_chains_input() -> None:
    request = failure_request(FAILED, "alert", {"channel": "ops"})
    assert request is not None
    assert request.task_id == "alert"
    assert request.params == {"channel": "ops"}
    assert request.input == {
        "taskID": "up",
        "runID": "run1",
        "status": "failure",
        "output": None,
        "error": {"code": "script_error", "message": "division by zero"},
        "_chain_depth": 4,
        "channel": "ops",
    }
    assert request.idempotency_key == "failure-chain:run1"
    assert (request.parent_run_id, request.root_run_id) == ("run1", "root")
    assert request.chain_depth == 4


@pytest.mark.parametrize("status", [RunStatus.FAILURE, RunStatus.TIMEOUT, RunStatus.LOST])
def test_a_failure_chain_follows_every_bad_end(status: RunStatus) -> None:
    assert failure_request(replace(FAILED, status=status), "alert", {}) is not None


@pytest.mark.parametrize("status", [RunStatus.SUCCESS, RunStatus.CANCELLED, RunStatus.SKIPPED])
def test_a_failure_chain_follows_no_other_end(status: RunStatus) -> None:
    assert failure_request(replace(FAILED, status=status), "alert", {}) is None


def test_a_failure_chain_never_runs_for_itself() -> None:
    assert failure_request(FAILED, "up", {}) is None


def test_a_failure_chain_never_runs_for_a_run_that_a_failure_chain_started() -> None:
    request = failure_request(FAILED, "alert", {})
    assert request is not None
    alert = replace(FAILED, id="run2", task_id="alert", actor=request.actor)
    assert failure_request(alert, "pager", {}) is None


def test_the_depth_limit_is_sixteen() -> None:
    def error(depth: int) -> RunError | None:
        (request,) = chain_requests(replace(ENDED, chain_depth=depth), [("down", "success")])
        return depth_error(request)

    assert error(MAX_CHAIN_DEPTH - 1) is None
    refused = error(MAX_CHAIN_DEPTH)
    assert refused is not None
    assert refused.code == Reason.CHAIN_DEPTH

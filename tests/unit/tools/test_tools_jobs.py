"""Jobs on the wire: what each status carries, and runs as jobs."""

from __future__ import annotations

from typing import Any

import mcp_types as t
import pytest

from dicode_mcp.tools.jobs import Job, created, shown
from dicode_mcp.tools.questions import form
from dicode_mcp.tools.registry import Answer, succeeded
from dicode_mcp.tools.run_jobs import job_of

NOW = "2026-05-01T00:00:00Z"
RESULT = succeeded(Answer({"a": 1}))
ERROR = t.ErrorData(code=-32603, message="broken")
ASKED = {"ok": form("Sure?", {"type": "object", "properties": {}})}


def job(status: Any) -> Job:
    """Make a job that has everything, whatever its status."""
    return Job("j", status, NOW, NOW, result=RESULT, error=ERROR, questions=ASKED)


@pytest.mark.parametrize(
    ("status", "carries"),
    [
        ("working", set[str]()),
        ("input_required", {"inputRequests"}),
        ("completed", {"result"}),
        ("failed", {"error"}),
        ("cancelled", set[str]()),
    ],
)
def test_a_status_carries_what_belongs_to_it_and_no_more(status: Any, carries: set[str]) -> None:
    wire = shown(job(status))
    extras = {"result", "error", "inputRequests"}
    assert extras & wire.keys() == carries
    assert wire["resultType"] == "complete"
    assert not extras & created(job(status)).keys()


def test_a_new_job_is_flat_and_names_its_times_in_milliseconds() -> None:
    wire = created(Job("j", "working", NOW, NOW, message="on"))
    assert wire == {
        "resultType": "task",
        "taskId": "j",
        "status": "working",
        "createdAt": NOW,
        "lastUpdatedAt": NOW,
        "ttlMs": 3_600_000,
        "pollIntervalMs": 1000,
        "statusMessage": "on",
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("queued", "working"),
        ("running", "working"),
        ("success", "completed"),
        ("failure", "completed"),
        ("timeout", "completed"),
        ("lost", "completed"),
        ("skipped", "completed"),
        ("cancelled", "cancelled"),
    ],
)
def test_a_run_is_a_job_by_its_own_id(status: str, expected: str) -> None:
    run: dict[str, Any] = {
        "run_id": "r1",
        "task": "a/b",
        "status": status,
        "created_at": NOW,
        "logs_tail": [],
    }
    found = job_of(run, "r1")
    assert (found.id, found.status) == ("r1", expected)
    assert (found.result is not None) is (expected == "completed")
    if found.result is not None:
        assert found.result.structured_content == run
        assert not found.result.is_error

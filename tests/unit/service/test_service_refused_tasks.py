"""What the log says of tasks that were refused: who at once, and a flood in few lines."""

from __future__ import annotations

import pytest

from dicode_mcp.executor.lineage import Lineage, Origin
from dicode_mcp.service.refused_tasks import QUIET_S, RefusedTasks


def test_the_first_refusal_names_run_and_process(caplog: pytest.LogCaptureFixture) -> None:
    RefusedTasks("HTTP").note(Lineage(Origin.TASK, 42, "01abc"))
    assert caplog.messages == [
        "a task (run 01abc, pid 42) called the server over HTTP, and was refused"
    ]


def test_a_process_that_cannot_be_told_is_not_called_a_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    RefusedTasks("HTTP").note(Lineage(Origin.UNKNOWN))
    assert caplog.messages == ["a process that may be a task's called over HTTP, and was refused"]


def test_a_flood_is_counted_and_not_told_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    refused = RefusedTasks("HTTP", monotonic=lambda: now)
    for _ in range(1000):
        refused.note(Lineage(Origin.TASK, 42))
    assert len(caplog.messages) == 1
    now += QUIET_S
    refused.note(Lineage(Origin.TASK, 42))
    assert caplog.messages[1:] == [
        "a task (pid 42) called the server over HTTP, and was refused;"
        " 999 more since the last such line"
    ]

"""What kill -9 of the server leaves, in few cycles; `make crash` does fifty."""

import crash_loop
import pytest

pytestmark = pytest.mark.slow


def test_kill_9_under_load_loses_no_acknowledged_run_and_leaves_no_process() -> None:
    report = crash_loop.run(cycles=4, rate=10.0, seed=20_261_120)
    assert report.acknowledged >= 4
    assert report.lost == []
    assert report.left_running == []
    assert report.strays == []
    assert set(report.statuses) <= {"success", "lost"}
    assert report.statuses["success"] > 0

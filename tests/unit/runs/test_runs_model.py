import itertools

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.logs import MARK, Level, read_line
from dicode_mcp.runs.model import (
    TRANSITIONS,
    Outcome,
    Run,
    RunStatus,
    Trigger,
    finished,
    move,
    new_run_id,
    sources_of,
)


def run_in(status: RunStatus) -> Run:
    return Run(id="r1", task_id="t", status=status, trigger=Trigger.MCP, created_at_ms=1)


@pytest.mark.parametrize(("start", "to"), list(itertools.product(RunStatus, RunStatus)))
def test_a_run_moves_only_along_the_table(start: RunStatus, to: RunStatus) -> None:
    if to in TRANSITIONS[start]:
        assert move(run_in(start), to).status is to
        assert start in sources_of(to)
    else:
        with pytest.raises(DicodeError) as caught:
            move(run_in(start), to)
        assert caught.value.code is Code.CONFLICT
        assert start not in sources_of(to)


def test_an_ended_run_never_moves_again() -> None:
    ended = {s for s in RunStatus if s.ended}
    assert ended == {
        RunStatus.SUCCESS,
        RunStatus.FAILURE,
        RunStatus.TIMEOUT,
        RunStatus.CANCELLED,
        RunStatus.SKIPPED,
        RunStatus.LOST,
    }


def test_finishing_writes_the_outcome_and_the_duration() -> None:
    started = move(run_in(RunStatus.QUEUED), RunStatus.RUNNING, started_at_ms=1_000)
    done = finished(started, Outcome(RunStatus.SUCCESS, 1_250, return_value="1"))
    assert (done.status, done.duration_ms, done.return_value) == (RunStatus.SUCCESS, 250, "1")


def test_run_ids_sort_by_the_time_they_were_made() -> None:
    ids = [new_run_id(ms) for ms in (1, 2, 1_700_000_000_000, 1_800_000_000_000)]
    assert ids == sorted(ids)
    assert {len(i) for i in ids} == {26}
    assert len({new_run_id(5) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    ("stream", "text", "expected"),
    [
        ("stdout", "plain", (Level.INFO, "plain")),
        ("stderr", "plain", (Level.WARN, "plain")),
        ("stdout", MARK + '{"l":"error","m":"a\\nb"}', (Level.ERROR, "a\nb")),
        ("stderr", MARK + '{"l":"debug","m":"x"}', (Level.DEBUG, "x")),
        ("stderr", MARK + '{"l":"security","m":"blocked"}', (Level.SECURITY, "blocked")),
        ("stdout", MARK + '{"l":"loud","m":"forged"}', None),
        ("stdout", MARK + "not json", None),
        ("stdout", MARK + '["l"]', None),
        ("stdout", MARK + '{"l":"info","m":1}', None),
    ],
)
def test_a_line_keeps_its_level_and_a_forged_mark_is_plain_text(
    stream: str, text: str, expected: tuple[Level, str] | None
) -> None:
    wanted = expected or (Level.INFO, text)
    assert read_line("stdout" if stream == "stdout" else "stderr", text) == wanted

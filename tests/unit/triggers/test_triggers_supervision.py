"""What is done about a daemon, as a table: how it stands, what was seen, what follows."""

import pytest

from dicode_mcp.runs.model import RunStatus
from dicode_mcp.triggers.supervision import (
    Action,
    End,
    Phase,
    Restart,
    State,
    Wanted,
    decide,
    pause_after,
)

NOW = 1000.0
V1 = Wanted("v1", "always")
V2 = Wanted("v2", "always")
ON = State(Phase.ON, "v1", NOW - 5)
HEALTHY = State(Phase.ON, "v1", NOW - 61)
STOPPING = State(Phase.STOPPING, "v1", NOW - 5)
PAUSING = State(Phase.PAUSING, "v1", NOW + 3, quick_ends=3, last_end="failure: boom")
DUE = State(Phase.PAUSING, "v1", NOW - 0.1, quick_ends=3, last_end="failure: boom")
FINISHED = State(Phase.DONE, "v1", NOW - 5)

CRASH = End(RunStatus.FAILURE, "boom")
FINE = End(RunStatus.SUCCESS)
CANCELLED = End(RunStatus.CANCELLED, "the run was cancelled")

NONE, START, STOP, LEAVE = Action.NONE, Action.START, Action.STOP, Action.LEAVE

ROWS = [
    ("a new daemon starts", State(), V1, None, START, Phase.ON),
    ("one that is on is left alone", ON, V1, None, NONE, Phase.ON),
    ("a changed one is stopped first", ON, V2, None, STOP, Phase.STOPPING),
    ("and waited for", STOPPING, V2, None, NONE, Phase.STOPPING),
    ("and started when it is gone", STOPPING, V2, CANCELLED, START, Phase.ON),
    (
        "one stopped and wanted again starts when it is gone",
        STOPPING,
        V1,
        CANCELLED,
        START,
        Phase.ON,
    ),
    ("one that is no longer wanted is stopped", ON, None, None, STOP, Phase.STOPPING),
    ("and left when it is gone", STOPPING, None, CANCELLED, LEAVE, Phase.IDLE),
    ("one that ends when it is no longer wanted is left", ON, None, CRASH, LEAVE, Phase.IDLE),
    ("one that waits for its restart is left at once", PAUSING, None, None, LEAVE, Phase.IDLE),
    ("a crash is answered by a pause", ON, V1, CRASH, NONE, Phase.PAUSING),
    ("a good end too, with restart always", ON, V1, FINE, NONE, Phase.PAUSING),
    ("a pause lasts", PAUSING, V1, None, NONE, Phase.PAUSING),
    ("and ends in a start", DUE, V1, None, START, Phase.ON),
    ("a change cuts the pause short", PAUSING, V2, None, START, Phase.ON),
    ("a change revives one that was done", FINISHED, V2, None, START, Phase.ON),
    ("one that is done stays so", FINISHED, V1, None, NONE, Phase.DONE),
    ("a crash of an old version starts the new one", ON, V2, CRASH, START, Phase.ON),
    ("a cancelled one comes back, with restart always", ON, V1, CANCELLED, NONE, Phase.PAUSING),
]


@pytest.mark.parametrize(
    ("state", "wanted", "end", "action", "phase"),
    [row[1:] for row in ROWS],
    ids=[r[0] for r in ROWS],
)
def test_a_daemon_gets_what_the_table_says(
    state: State, wanted: Wanted | None, end: End | None, action: Action, phase: Phase
) -> None:
    decision = decide(state, wanted, end, NOW)
    assert (decision.action, decision.state.phase) == (action, phase)


RESTARTS: list[tuple[Restart, RunStatus, Phase]] = [
    ("always", RunStatus.SUCCESS, Phase.PAUSING),
    ("always", RunStatus.FAILURE, Phase.PAUSING),
    ("always", RunStatus.CANCELLED, Phase.PAUSING),
    ("on-failure", RunStatus.SUCCESS, Phase.DONE),
    ("on-failure", RunStatus.FAILURE, Phase.PAUSING),
    ("on-failure", RunStatus.TIMEOUT, Phase.PAUSING),
    ("on-failure", RunStatus.LOST, Phase.PAUSING),
    ("on-failure", RunStatus.CANCELLED, Phase.DONE),
    ("never", RunStatus.SUCCESS, Phase.DONE),
    ("never", RunStatus.FAILURE, Phase.DONE),
    ("never", RunStatus.CANCELLED, Phase.DONE),
]


@pytest.mark.parametrize(("restart", "status", "phase"), RESTARTS)
def test_the_restart_policy_decides_on_an_end(
    restart: Restart, status: RunStatus, phase: Phase
) -> None:
    decision = decide(ON, Wanted("v1", restart), End(status), NOW)
    assert decision.state.phase is phase
    assert decision.action is NONE


def test_pauses_double_from_one_second_to_a_minute() -> None:
    assert [pause_after(n) for n in range(9)] == [1, 1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_after(10_000) == 60


def test_a_daemon_that_ends_at_once_again_and_again_waits_longer_each_time() -> None:
    state, now, pauses = State(), 0.0, list[float]()
    state = decide(state, V1, None, now).state
    for _ in range(9):
        now += 0.2
        decision = decide(state, V1, CRASH, now)
        assert decision.wait_s is not None
        pauses.append(round(decision.wait_s, 6))
        now += decision.wait_s
        started = decide(decision.state, V1, None, now)
        assert started.action is START
        state = started.state
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_healthy_minute_resets_the_pause() -> None:
    worn = State(Phase.ON, "v1", NOW - 60, quick_ends=7)
    decision = decide(worn, V1, CRASH, NOW)
    assert decision.wait_s == 1
    assert decision.looping is None


def test_a_minute_that_was_not_full_resets_nothing() -> None:
    worn = State(Phase.ON, "v1", NOW - 59, quick_ends=3)
    decision = decide(worn, V1, CRASH, NOW)
    assert decision.wait_s == 8


def test_a_cancel_is_no_crash() -> None:
    decision = decide(State(Phase.ON, "v1", NOW - 5, quick_ends=5), V1, CANCELLED, NOW)
    assert (decision.wait_s, decision.looping) == (1, None)


def test_one_quick_end_is_no_loop_and_two_are() -> None:
    first = decide(ON, V1, CRASH, NOW)
    assert first.looping is None
    started = decide(first.state, V1, None, NOW + 1)
    second = decide(started.state, V1, CRASH, NOW + 2)
    assert second.looping is not None
    assert "2 times" in second.looping
    assert "failure: boom" in second.looping


def test_the_loop_is_shown_until_a_run_was_healthy_and_then_no_more() -> None:
    on_again = decide(DUE, V1, None, NOW)
    assert on_again.looping is not None
    assert on_again.wait_s == 60
    later = decide(on_again.state, V1, None, NOW + 30)
    assert later.looping is not None
    assert later.wait_s == 30
    assert decide(later.state, V1, None, NOW + 60).looping is None


def test_a_healthy_daemon_needs_no_clock() -> None:
    assert decide(HEALTHY, V1, None, NOW).wait_s is None
    assert decide(ON, V1, None, NOW).wait_s is None


def test_a_new_version_starts_with_a_clean_record() -> None:
    decision = decide(PAUSING, V2, None, NOW)
    assert decision.state.quick_ends == 0
    assert decision.looping is None


@pytest.mark.parametrize("state", [ON, HEALTHY])
def test_a_closing_server_stops_what_is_on(state: State) -> None:
    assert decide(state, V1, None, NOW, closing=True).action is STOP


@pytest.mark.parametrize("state", [State(), PAUSING, DUE, FINISHED])
def test_a_closing_server_starts_nothing(state: State) -> None:
    assert decide(state, V1, None, NOW, closing=True).action is LEAVE


def test_a_closing_server_leaves_a_daemon_that_has_ended() -> None:
    assert decide(STOPPING, V1, CANCELLED, NOW, closing=True).action is LEAVE
    assert decide(ON, V1, CRASH, NOW, closing=True).action is LEAVE

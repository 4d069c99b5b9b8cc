"""What to do about one daemon next: decided from how it stands and what was seen. Pure.

Times are seconds of the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from typing import Literal

from dicode_mcp.runs.model import RunStatus

HEALTHY_AFTER_S = 60.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LOOPING_FROM = 2
"""This many quick ends in a row are shown as a crash loop."""

Restart = Literal["always", "on-failure", "never"]

_FAILED = frozenset({RunStatus.FAILURE, RunStatus.TIMEOUT, RunStatus.LOST})


class Phase(StrEnum):
    """Where a daemon stands."""

    IDLE = "idle"
    """It has no run, and may get one at once."""
    ON = "on"
    STOPPING = "stopping"
    PAUSING = "pausing"
    """Between an end and the restart."""
    DONE = "done"
    """It ended, and its restart policy leaves it so until it changes."""


class Action(Enum):
    """What the caller is to do."""

    NONE = auto()
    START = auto()
    STOP = auto()
    LEAVE = auto()
    """Nothing is left to supervise."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The version that should be on."""

    digest: str
    restart: Restart


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended, with a sentence when it did not end well."""

    status: RunStatus
    message: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A daemon between two decisions. ``since`` is when it started, or when it may restart."""

    phase: Phase = Phase.IDLE
    digest: str = ""
    since: float = 0.0
    quick_ends: int = 0
    last_end: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next state, what to do, what to show, and after how long to ask again at the latest."""

    state: State
    action: Action = Action.NONE
    looping: str | None = None
    wait_s: float | None = None


def decide(
    state: State, wanted: Wanted | None, end: End | None, now: float, *, closing: bool = False
) -> Decision:
    """Decide. ``wanted`` is None for a daemon that should not be on; ``end`` is told once.

    ``closing``: the server stops, so nothing starts any more.
    """
    if end is not None:
        state = _after(state, end, wanted, now)
    state = _healthy(state, now)
    if closing:
        wanted = None
    if wanted is None:
        return _unwanted(state)
    if state.digest != wanted.digest:
        return _changed(state, wanted, now)
    return _unchanged(state, now)


def pause_after(quick_ends: int) -> float:
    """Give the seconds before a restart: 1, 2, 4 … 60."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** max(0, min(quick_ends, 10) - 1))


def _after(state: State, end: End, wanted: Wanted | None, now: float) -> State:
    if state.phase is not Phase.ON or wanted is None:
        return State(last_end=state.last_end)
    healthy = now - state.since >= HEALTHY_AFTER_S
    asked_for = end.status is RunStatus.CANCELLED
    quick_ends = 0 if healthy or asked_for else state.quick_ends + 1
    ended = replace(state, quick_ends=quick_ends, last_end=_words(end))
    if _restarts(wanted.restart, end.status):
        return replace(ended, phase=Phase.PAUSING, since=now + pause_after(quick_ends))
    return replace(ended, phase=Phase.DONE, quick_ends=0)


def _restarts(restart: Restart, status: RunStatus) -> bool:
    return restart == "always" or (restart == "on-failure" and status in _FAILED)


def _words(end: End) -> str:
    return f"{end.status.value}: {end.message}" if end.message else end.status.value


def _healthy(state: State, now: float) -> State:
    if state.phase is Phase.ON and now - state.since >= HEALTHY_AFTER_S:
        return replace(state, quick_ends=0)
    return state


def _unwanted(state: State) -> Decision:
    if state.phase is Phase.ON:
        return Decision(replace(state, phase=Phase.STOPPING), Action.STOP)
    if state.phase is Phase.STOPPING:
        return Decision(state)
    return Decision(State(), Action.LEAVE)


def _changed(state: State, wanted: Wanted, now: float) -> Decision:
    """Stop the old version first; a new one starts at once and with a clean record."""
    if state.phase is Phase.ON:
        return Decision(replace(state, phase=Phase.STOPPING), Action.STOP)
    if state.phase is Phase.STOPPING:
        return Decision(state)
    return Decision(State(Phase.ON, wanted.digest, now), Action.START)


def _unchanged(state: State, now: float) -> Decision:
    looping = _looping(state)
    if state.phase is Phase.PAUSING and now >= state.since:
        started = replace(state, phase=Phase.ON, since=now)
        return Decision(started, Action.START, looping, HEALTHY_AFTER_S if looping else None)
    if state.phase is Phase.PAUSING:
        return Decision(state, looping=looping, wait_s=state.since - now)
    if state.phase is Phase.ON and looping:
        wait = max(0.0, state.since + HEALTHY_AFTER_S - now)
        return Decision(state, looping=looping, wait_s=wait)
    return Decision(state, looping=looping)


def _looping(state: State) -> str | None:
    if state.quick_ends < LOOPING_FROM:
        return None
    return (
        f"the daemon ended {state.quick_ends} times in a row within a minute of its start; "
        f"last: {state.last_end}. It is started again with pauses of up to "
        f"{LONGEST_PAUSE_S:.0f} s; get_runs and get_logs show each try"
    )

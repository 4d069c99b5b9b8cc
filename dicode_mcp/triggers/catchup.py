"""Which runs the slots of a stretch of time get: what is due, and what was missed. Pure.

A slot that is at most a minute late is on time. Later ones were missed: the server was off, the
machine slept, or the clock was put forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicode_mcp.triggers.schedule import Schedule

GRACE_MS = 60_000
MOST_CAUGHT_UP = 100

Catchup = Literal["skip", "one", "all"]


@dataclass(frozen=True, slots=True)
class Fire:
    """A slot that gets a run; ``catchup`` when it stands for what was missed."""

    slot_ms: int
    catchup: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of the slots up to ``upto_ms`` (the newest of them; None: there were none).

    ``missed`` counts late slots as far as they were looked at: one when only the newest mattered.
    ``dropped``: there were more than ``MOST_CAUGHT_UP`` to catch up, and the oldest get no run.
    """

    fires: tuple[Fire, ...] = ()
    upto_ms: int | None = None
    missed: int = 0
    dropped: bool = False


def settle(
    schedule: Schedule, task_id: str, *, last_ms: int, now_ms: int, catchup: Catchup
) -> Settlement:
    """Decide on the slots after ``last_ms`` that are due by ``now_ms``."""
    on_time: list[int] = []
    late: list[int] = []
    enough = MOST_CAUGHT_UP + 1 if catchup == "all" else 1
    for slot in schedule.before(now_ms):
        if slot <= last_ms or len(late) == enough:
            break
        due = schedule.due(task_id, slot)
        if due > now_ms:
            continue
        (late if now_ms - due > GRACE_MS else on_time).insert(0, slot)
    if not on_time and not late:
        return Settlement()
    dropped = len(late) > MOST_CAUGHT_UP
    return Settlement(
        fires=_fires(late[-MOST_CAUGHT_UP:], on_time, catchup),
        upto_ms=max(on_time + late),
        missed=len(late),
        dropped=dropped,
    )


def _fires(late: list[int], on_time: list[int], catchup: Catchup) -> tuple[Fire, ...]:
    prompt = tuple(Fire(slot) for slot in on_time)
    if catchup == "skip" or not late:
        return prompt
    if catchup == "all":
        return (*(Fire(slot, catchup=True) for slot in late), *prompt)
    return (Fire(max(late + on_time), catchup=True),)

"""What people are told of a task's runs: decided from its last end and what was told before.

Pure. Who delivers a notice, and in which words of which service, is unknown here: a notice is the
input of a run like any other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from dicode_mcp.clock import iso
from dicode_mcp.runs.follow_ups import ENDED_BADLY, NOTIFY
from dicode_mcp.runs.model import Payload, Run, RunError, RunStatus

DAY_MS = 24 * 60 * 60 * 1000
TELL_AGAIN_MS = 5 * 60 * 1000
"""After a notice that did not get through, the next failure is told no sooner than this."""
MAX_CHANGES = 10
"""So many different failures are told one by one before only reminders follow."""

_MESSAGE_CHARS = 1000
_TEXT_CHARS = 300
_STATUS_CODE = re.compile(r"\W*[1-5]\d\d\W*")


class NoticeEvent(StrEnum):
    """Why people are told; stable, part of the public interface."""

    FIRST_FAILURE = "first_failure"
    """The task failed, and the run before did not, or there was none."""
    CHANGED_FAILURE = "changed_failure"
    """It still fails, in a way that was not told yet."""
    REMINDER = "reminder"
    """It still fails, and it is a while since that was told."""
    RECOVERY = "recovery"
    """It succeeded after a failure that was told."""
    SUCCESS = "success"
    """It succeeded, and the task wants that told."""


@dataclass(frozen=True, slots=True)
class NoticeRules:
    """What of a task is told. ``reminder_ms`` None: a failure that goes on is told once."""

    on_success: bool = False
    on_failure: bool = True
    reminder_ms: int | None = DAY_MS


@dataclass(frozen=True, slots=True)
class NoticeState:
    """What is known of a task's failures, and of the notices on them. Times are epoch ms."""

    task_id: str
    since_ms: int | None = None
    """When it began to fail; None while it does not."""
    count: int = 0
    """How many runs have failed since."""
    told_ms: int | None = None
    """The last notice on these failures."""
    told: tuple[str, ...] = ()
    """The kinds of failure that were told, as fingerprints."""
    undelivered: int = 0
    """How many notices in a row did not get through."""
    delivery_ms: int | None = None
    delivery_run_id: str | None = None
    delivery_error: str | None = None
    """When, in which run and why the last one did not."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell. ``since_ms`` and ``count`` are of the failures it is about."""

    event: NoticeEvent
    since_ms: int | None = None
    count: int = 0


class NoticeChange(Protocol):
    """What a run's end does to the state of a task, decided inside the store's transaction.

    ``settle`` is called in the store's thread: it is pure and never fails.
    """

    @property
    def task_id(self) -> str:
        """Whose state it is."""
        ...

    def settle(self, state: NoticeState) -> Settled:
        """Give the state to keep, and the run to add, for the state there is."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """What a change came to: the state to keep, and the run that tells, if there is one."""

    state: NoticeState
    follow_up: tuple[Run, Payload] | None = None


def decide(state: NoticeState, ended: Run, rules: NoticeRules) -> tuple[NoticeState, Notice | None]:
    """Give the state after a run's end, and what to tell of it.

    Ends that say nothing about the task (cancelled, skipped) change nothing.
    """
    if ended.status is RunStatus.SUCCESS:
        return _after_success(state, rules)
    if ended.status in ENDED_BADLY:
        return _after_failure(state, ended, rules)
    return state, None


def _after_success(state: NoticeState, rules: NoticeRules) -> tuple[NoticeState, Notice | None]:
    after = replace(state, since_ms=None, count=0, told_ms=None, told=())
    if rules.on_failure and state.told_ms is not None:
        return after, Notice(NoticeEvent.RECOVERY, state.since_ms, state.count)
    return after, Notice(NoticeEvent.SUCCESS) if rules.on_success else None


def _after_failure(
    state: NoticeState, ended: Run, rules: NoticeRules
) -> tuple[NoticeState, Notice | None]:
    now = ended.finished_at_ms or ended.created_at_ms
    since = now if state.since_ms is None else state.since_ms
    after = replace(state, since_ms=since, count=state.count + 1)
    mark = fingerprint(ended)
    event = _failure_event(state, mark, now, rules) if rules.on_failure else None
    if event is None:
        return after, None
    told = (*state.told, mark) if event is NoticeEvent.CHANGED_FAILURE else (mark,)
    return replace(after, told_ms=now, told=told), Notice(event, since, after.count)


def _failure_event(
    state: NoticeState, mark: str, now: int, rules: NoticeRules
) -> NoticeEvent | None:
    if state.told_ms is None:
        return NoticeEvent.FIRST_FAILURE
    quiet = now - state.told_ms
    if state.undelivered:
        # Nobody heard of it; but what cannot be delivered must not be tried at every failure.
        return NoticeEvent.FIRST_FAILURE if quiet >= TELL_AGAIN_MS else None
    if rules.reminder_ms is not None and quiet >= rules.reminder_ms:
        return NoticeEvent.REMINDER
    if mark not in state.told and len(state.told) < MAX_CHANGES:
        return NoticeEvent.CHANGED_FAILURE
    return None


def fingerprint(ended: Run) -> str:
    """Give what is equal for failures of one kind: words with digits (ids, times) do not count.

    A number that may be an HTTP status does: 404 and 500 are different failures.
    """
    error = ended.error
    words = error.message.split() if error else ()
    kept = " ".join(w if _STATUS_CODE.fullmatch(w) else _without_numbers(w) for w in words)
    parts = (ended.status.value, ended.reason or "", error.code if error else "", kept)
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _without_numbers(word: str) -> str:
    return "#" if any(c.isdigit() for c in word) else word


def told_task(run: Run) -> str | None:
    """Give the task that a run tells of, None when it tells of none."""
    return run.actor.removeprefix(NOTIFY) if run.actor.startswith(NOTIFY) else None


# ── Changes that a run's end brings ──────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Telling:
    """The end of a run that may be told. ``make`` gives the run that tells, for its input.

    That run's id is ``row_id``; when it could not start it is over already.
    """

    ended: Run
    task_name: str
    rules: NoticeRules
    row_id: str
    make: Callable[[Mapping[str, Any]], tuple[Run, Payload]]
    url: str | None = None

    @property
    def task_id(self) -> str:
        """Whose state changes."""
        return self.ended.task_id

    def settle(self, state: NoticeState) -> Settled:
        """Decide what is told, now that the state is certain."""
        after, notice = decide(state, self.ended, self.rules)
        if notice is None:
            return Settled(after)
        follow_up = self.make(notice_input(notice, self.ended, self.task_name, self.url))
        row = follow_up[0]
        if row.status.ended:
            after = delivered(after, row)
        return Settled(after, follow_up)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The end of the run that told of ``task_id``."""

    task_id: str
    ended: Run

    def settle(self, state: NoticeState) -> Settled:
        """Note whether it got through."""
        return Settled(delivered(state, self.ended))


def delivered(state: NoticeState, run: Run) -> NoticeState:
    """Give the state after a delivery has ended, well or not."""
    if run.status is RunStatus.SUCCESS:
        return replace(
            state, undelivered=0, delivery_ms=None, delivery_run_id=None, delivery_error=None
        )
    why = run.error.message if run.error else f"the run ended as {run.status.value}"
    return replace(
        state,
        undelivered=state.undelivered + 1,
        delivery_ms=run.finished_at_ms,
        delivery_run_id=run.id,
        delivery_error=_cut(why, _MESSAGE_CHARS),
    )


# ── What the delivering task is given ────────────────────────────────────────────────────────


def notice_input(notice: Notice, ended: Run, name: str, url: str | None) -> dict[str, Any]:
    """Write a notice as the input of the task that delivers it.

    ``{event, task {id, name}, run {run_id, status, …}, error?, since?, count, url?, text}``.
    """
    found: dict[str, Any] = {
        "event": notice.event.value,
        "task": {"id": ended.task_id, "name": name},
        "run": _run(ended),
        "error": _error(ended.error),
        "since": None if notice.since_ms is None else iso(notice.since_ms),
        "count": notice.count,
        "url": url,
        "text": sentence(notice, ended),
    }
    return {key: value for key, value in found.items() if value is not None}


def sentence(notice: Notice, ended: Run) -> str:
    """Write a notice as one short sentence."""
    task, why = ended.task_id, _why(ended)
    since = "" if notice.since_ms is None else iso(notice.since_ms)[:16].replace("T", " ") + " UTC"
    match notice.event:
        case NoticeEvent.FIRST_FAILURE:
            return f"{task} failed: {why}"
        case NoticeEvent.CHANGED_FAILURE:
            return f"{task} now fails in another way: {why}"
        case NoticeEvent.REMINDER:
            return f"{task} still fails ({notice.count} runs since {since}): {why}"
        case NoticeEvent.RECOVERY:
            runs = "1 failed run" if notice.count == 1 else f"{notice.count} failed runs"
            return f"{task} works again, after {runs} since {since}"
        case NoticeEvent.SUCCESS:
            return f"{task} succeeded{_took(ended)}"


def _run(ended: Run) -> dict[str, Any]:
    found: dict[str, Any] = {
        "run_id": ended.id,
        "status": ended.status.value,
        "reason": ended.reason,
        "trigger": ended.trigger.value,
        "attempt": ended.attempt,
        "started_at": None if ended.started_at_ms is None else iso(ended.started_at_ms),
        "finished_at": None if ended.finished_at_ms is None else iso(ended.finished_at_ms),
        "duration_ms": ended.duration_ms,
        "revision": ended.revision,
    }
    return {key: value for key, value in found.items() if value is not None}


def _error(error: RunError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"code": error.code, "message": _cut(error.message, _MESSAGE_CHARS)}


def _why(ended: Run) -> str:
    if ended.error is None:
        return ended.reason or ended.status.value
    return _cut(" ".join(ended.error.message.split()), _TEXT_CHARS)


def _took(ended: Run) -> str:
    return "" if ended.duration_ms is None else f" in {ended.duration_ms / 1000:.1f} s"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

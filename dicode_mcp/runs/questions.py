"""What a run may ask a human in the middle: the question as a value, and which answers fit.

Pure. Who is asked, where and when is not known here; a question is the flat form that MCP's
elicitation allows, so that every surface can put it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicode_mcp.clock import iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.question_forms import read_schema
from dicode_mcp.runs.question_values import clean_text
from dicode_mcp.spec.quantities import format_duration, parse_duration

MAX_MESSAGE = 4_000
MAX_KEY = 512
MAX_QUESTIONS = 100
"""How often one run may ask."""
DEFAULT_TIMEOUT_S = 24 * 3600.0
MAX_TIMEOUT_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Draft:
    """A question as a script puts it. ``bare``: the script wants the one value, not an object."""

    message: str
    schema: Mapping[str, Any]
    key: str | None = None
    timeout_ms: int = round(DEFAULT_TIMEOUT_S * 1000)
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """What was answered, when, by whom and through which channel. Declined: ``value`` is None."""

    value: Mapping[str, Any] | None
    at_ms: int
    actor: str
    channel: str

    @property
    def declined(self) -> bool:
        """Whether the human would not answer."""
        return self.value is None


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a run as it is kept; ``n`` counts the run's questions from 1."""

    run_id: str
    n: int
    message: str
    schema: Mapping[str, Any] = field(hash=False)
    asked_at_ms: int
    deadline_ms: int
    key: str | None = None
    answered: Answered | None = None


def read_draft(args: Mapping[str, Any]) -> Draft:
    """Read the arguments of ``ask``; raises INVALID_ARGUMENT that names what to write instead."""
    schema, bare = read_schema(args.get("schema"))
    return Draft(
        message=_message(args.get("message")),
        schema=schema,
        key=_key(args.get("key")),
        timeout_ms=_timeout_ms(args.get("timeout")),
        bare=bare,
    )


def _message(given: Any) -> str:
    text = clean_text(given).strip() if isinstance(given, str) else ""
    if not text:
        raise _wrong(
            "ask: the message is missing", 'write what is asked: ask(schema, "Deploy 1.4 now?")'
        )
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _key(given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not 1 <= len(given) <= MAX_KEY or clean_text(given) != given:
        raise _wrong(
            "ask: the key is not a plain text",
            f"use 1 to {MAX_KEY} characters without control characters",
        )
    return given


def _timeout_ms(given: Any) -> int:
    if given is None:
        return round(DEFAULT_TIMEOUT_S * 1000)
    try:
        seconds = parse_duration(given)
    except ValueError as error:
        raise _wrong(f"ask: timeout {error}", "for example timeout=3600 or '36h'") from None
    if not 1 <= seconds <= MAX_TIMEOUT_S:
        raise _wrong("ask: timeout is out of range", "use 1 second to 30 days, for example '7d'")
    return round(seconds * 1000)


def find(draft: Draft, place: int, asked: Sequence[Question]) -> Question | None:
    """Give the question asked before that ``draft`` is again; None when it is a new one.

    Found by its key, else as the ``place``-th of those without one. Raises ASK_MISMATCH when
    another question was asked there.
    """
    if draft.key is not None:
        found = next((q for q in asked if q.key == draft.key), None)
    else:
        nameless = [q for q in asked if q.key is None]
        found = nameless[place - 1] if place <= len(nameless) else None
    if found is not None and (found.message, found.schema) != (draft.message, draft.schema):
        raise _mismatch(draft, found)
    return found


def _mismatch(draft: Draft, found: Question) -> DicodeError:
    what = "message" if found.message != draft.message else "schema"
    where = f"with the key {json.dumps(draft.key)}" if draft.key else "at this place"
    return DicodeError(
        Code.ASK_MISMATCH,
        f"ask: question {found.n} of this run, {where}, was answered with another {what} than is"
        " asked now",
        hint="the run is started again from the top after an answer and must ask the same: give"
        " questions keys, and keep what changes between two starts with dicode.once(key, fn)",
        data={"question": found.n},
    )


def put(draft: Draft, run_id: str, n: int, now_ms: int) -> Question:
    """Give the row of a new question."""
    return Question(
        run_id, n, draft.message, draft.schema, now_ms, now_ms + draft.timeout_ms, draft.key
    )


def told(draft: Draft, answered: Answered) -> Any:
    """Give what ``ask`` returns; raises DECLINED when the human would not answer."""
    if answered.value is None:
        raise DicodeError(
            Code.DECLINED,
            f"the question was declined by {answered.actor} via {answered.channel}",
            hint="catch the error (its code is declined) where the task can go on without",
        )
    return answered.value["answer"] if draft.bare else dict(answered.value)


def expired(question: Question) -> tuple[str, str]:
    """Say that nobody answered in time, and what to do: message and hint."""
    waited = format_duration((question.deadline_ms - question.asked_at_ms) / 1000)
    return (
        f"nobody answered within {waited}: {_short(question.message)}",
        "run_task asks again; ask(…, timeout=) sets how long a question waits, at most 30 days",
    )


def already(question: Question) -> DicodeError:
    """Say who answered before."""
    done = question.answered
    assert done is not None
    what = "declined" if done.declined else "answered"
    return DicodeError(
        Code.CONFLICT,
        f"question {question.n} of run {question.run_id} was {what} already, by {done.actor} via"
        f" {done.channel} at {iso(done.at_ms)}",
        hint=f'get_run with run_id "{question.run_id}" shows how the run goes on',
        data={
            "run_id": question.run_id,
            "question": question.n,
            "answered_by": done.actor,
            "answered_via": done.channel,
            "answered_at": iso(done.at_ms),
        },
    )


def pause_line(draft: Draft) -> str:
    """Write the log line that marks the pause."""
    return f"[dicode] waits for an answer: {_short(draft.message)}"


def resume_line(question: Question) -> str:
    """Write the log line with which a run goes on after an answer."""
    done = question.answered
    if done is None:
        return "[dicode] started again from the top"
    what = "declined" if done.declined else "answered"
    return (
        f"[dicode] question {question.n} was {what} by {done.actor} via {done.channel};"
        " started again from the top"
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _wrong(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)

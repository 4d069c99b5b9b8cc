"""Runs and their bodies as columns and bytes, and what a listing shows of a run.

Every store uses ``listed`` and the cursor from here, so that they give the same pages.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, cast

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import AuditEntry
from dicode_mcp.runs.model import Output, Payload, Run, RunError, RunStatus, Trigger

BODY_FIELDS = ("return_value", "output")
"""Fields of ``Run`` that are not in its row."""
ROW_FIELDS = tuple(f.name for f in fields(Run) if f.name not in BODY_FIELDS)
SHORT_TEXT = 1_000
"""How many characters of an error's texts a listing shows."""
MAX_PAGE = 1_000
MAX_OFFSET = 10_000
IDEMPOTENCY_MS = 24 * 3600 * 1000
"""How long an idempotency key stands for its run."""


def to_json(value: Any) -> bytes:
    """Write a JSON-able value; raises ``DicodeError(INVALID_ARGUMENT)`` for another."""
    try:
        return json.dumps(value, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"a value to be stored is not JSON ({type(error).__name__})",
            hint="use only objects, arrays, strings, numbers, true, false and null",
        ) from None


def from_json(body: bytes | None) -> Any:
    """Read what ``to_json`` wrote; None gives None."""
    return None if body is None else json.loads(body)


def to_bytes(text: str | None) -> bytes | None:
    """Write text as it is, even with half of a surrogate pair in it."""
    return None if text is None else text.encode("utf-8", "surrogatepass")


def to_text(body: bytes | None) -> str | None:
    """Read what ``to_bytes`` wrote."""
    return None if body is None else body.decode("utf-8", "surrogatepass")


def check_key(key: str) -> None:
    """Refuse a key that some database could not keep (INVALID_ARGUMENT)."""
    if "\0" in key or any("\ud800" <= letter <= "\udfff" for letter in key):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "a key has a NUL character or half of a surrogate pair",
            hint="use printable characters in keys",
        )


# ── Runs ──


def row_of(run: Run) -> dict[str, Any]:
    """Give the columns of a run's row."""
    row = {name: getattr(run, name) for name in ROW_FIELDS}
    row["status"] = run.status.value
    row["trigger"] = run.trigger.value
    row["error"] = error_bytes(short_error(run.error))
    return row


def run_of(row: Sequence[Any]) -> Run:
    """Read a run from its row's columns, in the order of ``ROW_FIELDS``."""
    values = dict(zip(ROW_FIELDS, row, strict=True))
    values["status"] = RunStatus(values["status"])
    values["trigger"] = Trigger(values["trigger"])
    values["catchup"] = bool(values["catchup"])
    values["pinned"] = bool(values["pinned"])
    if values["error"] is not None:
        values["error"] = read_error(values["error"])
    return Run(**values)


def bodies_of(
    return_value: str | None, output: Output | None, error: RunError | None
) -> dict[str, bytes | None] | None:
    """Give the bodies of a run's end that its row does not hold; None when there are none."""
    whole_error = None if error == short_error(error) else error_bytes(error)
    if return_value is None and output is None and whole_error is None:
        return None
    return {
        "return_value": to_bytes(return_value),
        "output": None if output is None else to_json(asdict(output)),
        "error": whole_error,
    }


def with_bodies(
    run: Run, return_value: bytes | None, output: bytes | None, error: bytes | None
) -> Run:
    """Give ``run`` with the bodies that ``bodies_of`` made."""
    return replace(
        run,
        return_value=to_text(return_value),
        output=None if output is None else Output(**from_json(output)),
        error=run.error if error is None else read_error(error),
    )


def error_bytes(error: RunError | None) -> bytes | None:
    """Write an error, without the fields that are not set."""
    if error is None:
        return None
    return to_json({k: v for k, v in asdict(error).items() if v is not None})


def read_error(body: bytes) -> RunError:
    """Read what ``error_bytes`` wrote."""
    return RunError(**from_json(body))


def short_error(error: RunError | None) -> RunError | None:
    """Give what a listing shows of an error: no traceback, texts cut at ``SHORT_TEXT``."""
    if error is None:
        return None
    hint = None if error.hint is None else _cut(error.hint)
    return replace(error, message=_cut(error.message), hint=hint, traceback=None)


def listed(run: Run) -> Run:
    """Give what a listing shows of a run."""
    return replace(run, return_value=None, output=None, error=short_error(run.error))


def _cut(text: str) -> str:
    return text if len(text) <= SHORT_TEXT else text[: SHORT_TEXT - 1] + "…"


def payload_bytes(payload: Payload) -> bytes | None:
    """Write a payload; None when there is nothing in it."""
    if payload == Payload():
        return None
    if payload.dropped:
        return b""
    fields = asdict(payload)
    del fields["dropped"]
    return to_json(fields)


def payload_of(body: bytes | None) -> Payload:
    """Read what ``payload_bytes`` wrote; an empty body is one that was let go."""
    if body is None:
        return Payload()
    return Payload(**from_json(body)) if body else Payload(dropped=True)


def audit_of(row: Mapping[str, Any]) -> AuditEntry:
    """Read an audit entry from its row."""
    fields: dict[str, Any] = {**row, "detail": audit_detail(row["detail"])}
    return AuditEntry(**fields)


def audit_detail(body: bytes | None) -> dict[str, Any]:
    """Read an entry's detail. One that somebody made unreadable does not fit the chain."""
    try:
        detail: Any = from_json(body)
    except ValueError:
        detail = None
    return cast("dict[str, Any]", detail) if isinstance(detail, dict) else {"unreadable": True}


# ── Paging ──


def page_size(limit: int, most: int = MAX_PAGE) -> int:
    """Check a limit, and cut it to ``most``; raises INVALID_ARGUMENT below 1."""
    if limit < 1:
        raise DicodeError(
            Code.INVALID_ARGUMENT, "limit must be at least 1", hint=f"use 1 to {most}"
        )
    return min(limit, most)


def check_offset(offset: int) -> None:
    """Refuse an offset that would read too much (INVALID_ARGUMENT)."""
    if not 0 <= offset <= MAX_OFFSET:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"offset must be 0 to {MAX_OFFSET}",
            hint="pass next_cursor of the page before as cursor to go further back",
        )


def run_cursor(run: Run) -> str:
    """Name the place in a listing after ``run``."""
    return place_cursor(run.created_at_ms, run.id)


def place_cursor(created_at_ms: int, run_id: str) -> str:
    """Name the place in a listing after the run of this time and id."""
    place = to_json([created_at_ms, run_id])
    return base64.urlsafe_b64encode(place).decode("ascii").rstrip("=")


def read_run_cursor(cursor: str) -> tuple[int, str]:
    """Give ``(created_at_ms, id)`` of the last run seen; raises INVALID_ARGUMENT."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        place: Any = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        place = None
    if isinstance(place, list):
        match cast("list[Any]", place):
            case [int(created), str(run_id)] if abs(created) < 2**62 and run_id.isascii():
                return created, run_id
            case _:
                pass
    raise DicodeError(
        Code.INVALID_ARGUMENT,
        "cursor is not one that this server gave",
        hint="pass next_cursor of the page before, unchanged, or leave cursor out to start again",
    )

"""What the handlers below ``/api`` share: the caller, the query, the body, the answer.

All faults of a query or a body are told at once, with what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service import Principal

MAX_BODY = 64 * 1024
_NAMES: Mapping[type, str] = {bool: "true or false", str: "text", dict: "an object"}


def answer(value: dict[str, Any], status: int = 200, **headers: str) -> Response:
    """Answer with JSON that nobody keeps."""
    return JSONResponse(value, status, headers={"cache-control": "no-store", **headers})


def principal_of(request: Request) -> Principal:
    """Give the caller the guard established; refuse when there is none."""
    found: object = getattr(request.state, "principal", None)
    if not isinstance(found, Principal):
        raise DicodeError(Code.UNAUTHENTICATED, "the caller is not known")
    return found.narrowed(surface="http")


def idempotency_key(request: Request) -> str | None:
    """Give the ``Idempotency-Key`` header; raises INVALID_ARGUMENT for one that cannot be kept."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= 256 and key.isprintable()):
        raise invalid(
            "the Idempotency-Key header is not 1 to 256 printable characters",
            "use a text of your own that stands for this one wish",
        )
    return key


# ── The query ──


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number of the query, between two bounds."""

    low: int
    high: int

    def read(self, name: str, text: str) -> int:
        """Give the number; raises ``ValueError`` with a sentence."""
        if text.isascii() and text.isdigit() and len(text) < 20 and self.low <= int(text):
            if int(text) <= self.high:
                return int(text)
        raise ValueError(f"{name} must be a whole number from {self.low} to {self.high}")


@dataclass(frozen=True, slots=True)
class Word:
    """One of some words."""

    words: Sequence[str]

    def read(self, name: str, text: str) -> str:
        """Give the word; raises ``ValueError`` with a sentence."""
        if text in self.words:
            return text
        raise ValueError(f"{name} must be one of: {', '.join(self.words)}")


@dataclass(frozen=True, slots=True)
class Text:
    """Any text that is not empty."""

    longest: int = 512

    def read(self, name: str, text: str) -> str:
        """Give the text; raises ``ValueError`` with a sentence."""
        if 0 < len(text) <= self.longest:
            return text
        raise ValueError(f"{name} must be a text of 1 to {self.longest} characters")


Kind = Whole | Word | Text


def query_of(request: Request, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Read the query; unknown, repeated and bad parameters raise INVALID_ARGUMENT, all at once."""
    found: dict[str, Any] = {}
    faults: list[str] = []
    for name, text in request.query_params.multi_items():
        kind = kinds.get(name)
        if kind is None:
            faults.append(f"{name[:64]!r} is not known")
        elif name in found:
            faults.append(f"{name} is given twice")
        else:
            try:
                found[name] = kind.read(name, text)
            except ValueError as error:
                found[name] = None
                faults.append(str(error))
    if faults:
        allowed = ", ".join(kinds) or "none"
        raise invalid("; ".join(faults[:20]), f"query parameters here: {allowed}")
    return found


# ── The body ──


async def body_of(
    request: Request, keys: Mapping[str, type], *required: str, most: int = MAX_BODY
) -> dict[str, Any]:
    """Read a JSON object of known keys; null is absent. Raises INVALID_ARGUMENT, all at once.

    A key of type ``object`` takes any value. No body at all is an empty object, where nothing is
    required.
    """
    text = await request.body()
    if not text and not required:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise invalid("the body is not declared as JSON", "send Content-Type: application/json")
    if len(text) > most:
        raise DicodeError(Code.TOO_LARGE, f"the body is over {most} bytes")
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid("the body is not JSON", "send one JSON object") from None
    if not isinstance(parsed, dict):
        raise invalid("the body is not a JSON object", "send one JSON object")
    given = cast("dict[str, Any]", parsed)
    found = {name: value for name, value in given.items() if value is not None}
    faults = [f"{name} is missing" for name in required if name not in found]
    unknown = sorted(name for name in found if name not in keys)
    faults += [f"{name[:64]!r} is not known" for name in unknown]
    faults += [
        f"{name} must be {_NAMES[keys[name]]}"
        for name, value in found.items()
        if name in keys and keys[name] is not object and type(value) is not keys[name]
    ]
    if faults:
        raise invalid("; ".join(faults[:20]), f"keys: {', '.join(keys)}")
    return found


def word(body: Mapping[str, Any], name: str, words: Sequence[str]) -> str | None:
    """Give a key of a body that takes one of some words."""
    value = body.get(name)
    if value is None or value in words:
        return value
    raise invalid(f"{name} is not a word this takes", f"one of: {', '.join(words)}")


def invalid(message: str, hint: str) -> DicodeError:
    """Say that the request itself is wrong."""
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)

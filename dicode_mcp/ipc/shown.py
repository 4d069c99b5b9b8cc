"""Checking what a task shows with ``output.*`` and returns, before it is believed. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.ipc.frames import MAX_RETURN, Finish
from dicode_mcp.runs.model import Output, Reason, RunError

MAX_SECRETS = 200
"""How many secrets a run may give or set: each one is looked for in all that it writes."""
_KINDS = frozenset({"text", "html", "image", "file", "value"})
# A content type becomes a header: nothing else than one may pass.
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*(; ?[\w=.-]+)*")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]*={0,2}\s*")
_FIELDS = frozenset({"kind", "content_type", "body", "base64", "name", "data"})


def read_output(args: Mapping[str, Any]) -> Output:
    """Take the arguments of ``output``. Raises ``DicodeError(INVALID_ARGUMENT)``."""
    unknown = set(args) - _FIELDS
    kind, body = args.get("kind"), args.get("body")
    if unknown or kind not in _KINDS or not isinstance(body, str):
        _wrong("output needs a kind and a body as text")
    content_type = args.get("content_type")
    if not isinstance(content_type, str) or not _CONTENT_TYPE.fullmatch(content_type.lower()):
        _wrong("output needs a content type such as text/plain")
    base64 = args.get("base64", False)
    if base64 is not True and base64 is not False:
        _wrong("output's base64 is true or false")
    if base64 and not _BASE64.fullmatch(body):
        _wrong("the body is not base64")
    return Output(kind, content_type, body, base64, _name(args.get("name")), args.get("data"))


def is_secret(args: Mapping[str, Any]) -> bool:
    """Tell whether ``output`` was called with secrets for another task."""
    return args.get("kind") == "secret"


def read_secrets(args: Mapping[str, Any]) -> dict[str, str]:
    """Take the values of a provider task. Raises INVALID_ARGUMENT, naming no value."""
    values = args.get("data")
    if set(args) - {"kind", "data"} or not isinstance(values, dict):
        _wrong("output(…, secret=True) needs a mapping of names to values")
    named = cast("dict[str, Any]", values)
    if len(named) > MAX_SECRETS:
        _wrong(f"output(…, secret=True) takes at most {MAX_SECRETS} values")
    wrong = sorted(n for n, v in named.items() if not isinstance(v, str) or "\0" in v)
    if wrong:
        shown = ", ".join(repr(name[:64]) for name in wrong[:10])
        _wrong(f"output(…, secret=True): the values of {shown} are not text")
    return named


def new_secret(args: Mapping[str, Any]) -> dict[str, str]:
    """Give name and value of a ``secrets_set`` call; nothing when they are no texts."""
    name, value = args.get("name"), args.get("value")
    return {name: value} if isinstance(name, str) and isinstance(value, str) else {}


def _name(value: Any) -> str | None:
    if value is None:
        return None
    bad = not isinstance(value, str) or not value or len(value) > 255
    if bad or value in (".", "..") or re.search(r"[\x00-\x1f\x7f/\\]", value):
        _wrong("a file's name is 1 to 255 characters without slashes or control characters")
    return value


def _wrong(message: str) -> NoReturn:
    raise DicodeError(Code.INVALID_ARGUMENT, message)


def check_return(finish: Finish) -> RunError | None:
    """Give what is wrong with a finish frame's value: the SDK checks too, but it is the task's."""
    text = finish.return_value
    if text is None:
        return None
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_RETURN:
        return RunError(
            Reason.RETURN_TOO_LARGE.value,
            f"the return value is {size:,} bytes as JSON, more than the {MAX_RETURN:,} allowed",
            hint="return a summary; keep the rest with kv.set(), output.file() or a file",
        )
    try:
        text.encode()
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return RunError(Reason.RETURN_NOT_JSON.value, "the return value is not JSON")
    return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)

"""What an exception of a script tells its reader: where in the task, and how it came there.

Loaded only when a script fails.
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback

from dicode_sdk._channel import DicodeError, NoRetry
from dicode_sdk._result import Outcome, failure, safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_TRACE = 32_000
_TOLD_APART = ("output_too_large", "declined", "ask_mismatch")
"""Codes of refused calls that say more of a run's end than that its script failed."""


def show_code(script: str, code: str) -> None:
    """Let tracebacks quote ``code``, which ran, and not what the file holds by now."""
    linecache.cache[script] = (len(code), None, code.splitlines(keepends=True), script)


def failed(error: BaseException, folder: str, sdk_folder: str) -> Outcome:
    """Print the traceback as Python does, without our own frames, and give the outcome."""
    trace = traceback.TracebackException.from_exception(error)
    file, line = _place(error, folder)
    _tidy(trace, folder, sdk_folder, set())
    text = safe("".join(trace.format()))
    message = safe("".join(trace.format_exception_only()).strip())
    print(text, end="", file=sys.stderr)
    hint = error.hint if isinstance(error, DicodeError) else _hint(error)
    if isinstance(error, SyntaxError):
        message = f"SyntaxError: {error.msg}" if error.msg else message
    code = "script_error"
    if isinstance(error, DicodeError) and error.code in _TOLD_APART:
        code = error.code
    if isinstance(error, NoRetry):
        code = "no_retry"
    return failure(code, message, hint, file=file, line=line, traceback=_shorten(text))


def _place(error: BaseException, folder: str) -> tuple[str | None, int | None]:
    """Find the innermost line of the task's own files on the way to the error."""
    if isinstance(error, SyntaxError) and _inside(error.filename, folder):
        return os.path.relpath(error.filename or "", folder), error.lineno
    found: tuple[str | None, int | None] = (None, None)
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        if _inside(name, folder):
            found = (os.path.relpath(name, folder), line)
    if isinstance(error, BaseExceptionGroup) and error.exceptions:  # pyright: ignore[reportUnknownMemberType]
        inner = _place(error.exceptions[0], folder)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        return inner if inner[0] else found
    return found


def _inside(name: str | None, folder: str) -> bool:
    return bool(name) and str(name).startswith(folder + os.sep)


def _tidy(trace: Any, folder: str, sdk_folder: str, seen: set[int]) -> None:
    """Take our frames out and name the task's files as the task knows them."""
    if trace is None or id(trace) in seen:
        return
    seen.add(id(trace))
    kept = [frame for frame in trace.stack if not _inside(frame.filename, sdk_folder)]
    first = next((i for i, frame in enumerate(kept) if _inside(frame.filename, folder)), 0)
    for frame in kept:
        _ = frame.line  # read now: afterwards the file would not be found
        if _inside(frame.filename, folder):
            frame.filename = os.path.relpath(frame.filename, folder)
    trace.stack[:] = kept[first:]
    if _inside(getattr(trace, "filename", None), folder):
        trace.filename = os.path.relpath(trace.filename, folder)
    for other in (trace.__cause__, trace.__context__, *(getattr(trace, "exceptions", None) or ())):
        _tidy(other, folder, sdk_folder, seen)


def _hint(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"{error.name} is not installed for this task; tasks have the standard library and "
            "what the server's own environment holds"
        )
    if isinstance(error, RecursionError):
        return "a function calls itself without an end"
    from dicode_sdk import _refused

    return _refused.hint(error)


def _shorten(text: str) -> str:
    if len(text) <= _MAX_TRACE:
        return text
    half = _MAX_TRACE // 2
    return f"{text[:half]}\n… [{len(text) - _MAX_TRACE:,} characters left out]\n{text[-half:]}"

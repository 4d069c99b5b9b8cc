"""How a script ended, and the frame that tells the server."""

from __future__ import annotations

import sys

from dicode_sdk._wire import NotJson, encode, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_RETURN = 1024 * 1024
_MAX_MESSAGE = 4000


class Outcome:
    """The end of a script: a JSON text, or an error and the exit code that goes with it."""

    __slots__ = ("error", "exit_code", "value")

    def __init__(
        self, value: str | None = None, error: dict[str, Any] | None = None, exit_code: int = 0
    ) -> None:
        self.value = value
        self.error = error
        self.exit_code = exit_code

    def as_frame(self) -> dict[str, Any]:
        """Give the body of the ``finish`` frame."""
        return {"return": self.value, "error": self.error}


def returned(value: Any) -> Outcome:
    """Take a return value. Raises ``NotJson``."""
    if value is None:
        return Outcome()
    text = encode(plain(value))
    size = len(text.encode())
    if size <= MAX_RETURN:
        return Outcome(text)
    return failure(
        "return_too_large",
        f"the return value is {size:,} bytes as JSON, more than the {MAX_RETURN:,} allowed",
        "return a summary; keep the rest with kv.set(), output.file() or a file",
    )


def not_json(error: NotJson) -> Outcome:
    """Say where in the return value something has no JSON form."""
    hint = f"return {error.hint} there" if error.hint else None
    return failure("return_not_json", f"the return value cannot be JSON: {error}", hint)


def exited(error: SystemExit) -> Outcome:
    """Take ``sys.exit`` with anything but success, which prints as Python does."""
    if isinstance(error.code, int):
        outcome = failure("exit_code", f"the script called sys.exit({error.code})")
        outcome.exit_code = error.code & 0xFF
        return outcome
    text = str(error.code)
    print(text, file=sys.stderr)
    return failure("exit_code", text)


def failure(code: str, message: str, hint: str | None = None, **where: Any) -> Outcome:
    """Make a failed outcome. ``where`` may hold ``file``, ``line`` and ``traceback``."""
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + " …"
    error = {"code": code, "message": safe(message), "hint": hint, **where}
    return Outcome(error=error, exit_code=1)


def safe(text: str) -> str:
    """Replace what cannot be sent as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()

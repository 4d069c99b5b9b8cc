"""How a command can end badly, and the one table from an error to an exit code.

Errors made on this side are ``DicodeError``; what the server answered with ``isError`` is
``ToolFailed`` and is passed on as it came, since a newer server may use codes unknown here.
"""

from __future__ import annotations

from typing import Any

from dicode_mcp.errors import Code, DicodeError

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

_EXIT_CODES = {
    Code.UNREACHABLE: UNREACHABLE,
    Code.INVALID_ARGUMENT: USAGE,
    Code.INVALID_CONFIG: USAGE,
    Code.DATA_DIR: USAGE,
    Code.PORT_IN_USE: USAGE,
    Code.ALREADY_RUNNING: USAGE,
    Code.NOT_SUPPORTED: USAGE,
}


_COMMANDS = {
    Code.TASK_NOT_FOUND.value: "see `dicode list`",
    Code.RUN_NOT_FOUND.value: "see `dicode runs`",
    Code.SOURCE_NOT_FOUND.value: "see `dicode source list`",
    Code.TASK_PAUSED.value: "end the pause with `dicode enable TASK`",
}
"""What the server tells an agent as a tool to call, told to somebody at a terminal."""


class ToolFailed(Exception):
    """The server refused a call. ``result`` is its structured answer, ``{"error": {…}}``."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.result = result
        error: Any = result.get("error")
        self.error: dict[str, Any] = error if isinstance(error, dict) else {}
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The stable code, or ``internal`` when the answer has none."""
        return str(self.error.get("code", Code.INTERNAL.value))

    @property
    def message(self) -> str:
        """What went wrong, in the server's words."""
        return str(self.error.get("message", "the server refused the call without saying why"))

    @property
    def hint(self) -> str | None:
        """What to do next, if the server said; a tool it names is told as a command."""
        told = _COMMANDS.get(self.code)
        if told is not None:
            return told
        hint = self.error.get("hint")
        return str(hint) if hint else None


def exit_code(error: DicodeError) -> int:
    """Give the exit code for an error made on this side of the socket."""
    return _EXIT_CODES.get(error.code, FAILED)


def usage(message: str, hint: str | None = None) -> DicodeError:
    """Make the error of a command line that cannot be meant as written."""
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)


def unreachable(message: str, hint: str | None = None) -> DicodeError:
    """Make the error of a server that does not answer."""
    return DicodeError(Code.UNREACHABLE, message, hint=hint)

"""The one error type of the house, and its codes.

Every surface has one table from code to its own form (an MCP result, an HTTP status, an exit
code). Nobody matches on an error's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Stable error codes; they are part of the public interface."""

    TASK_NOT_FOUND = "task_not_found"
    """No task has this id; the message names the nearest."""
    RUN_NOT_FOUND = "run_not_found"
    """No run has this id."""
    SOURCE_NOT_FOUND = "source_not_found"
    """No source has this name."""
    NOT_FOUND = "not_found"
    """Something else that was named is not there: a folder, an address."""
    INVALID_PARAMS = "invalid_params"
    """Parameters are unknown, missing or of the wrong type; all are named."""
    INVALID_ARGUMENT = "invalid_argument"
    """An argument of the call itself is wrong."""
    INVALID_SPEC = "invalid_spec"
    """A task.yaml cannot be read as one."""
    INVALID_CONFIG = "invalid_config"
    """The configuration cannot be read; the server does not start."""
    TASK_NOT_READY = "task_not_ready"
    """The task never loaded, so there is no good version to run."""
    TASK_PAUSED = "task_paused"
    """The task takes no new run until set_task_enabled ends its pause."""
    UNAUTHENTICATED = "unauthenticated"
    """The HTTP caller is nobody this server knows."""
    FORBIDDEN = "forbidden"
    """The caller is known and may not do this; the hint names what would allow it."""
    CONFLICT = "conflict"
    """What was asked does not fit the present state."""
    ASK_MISMATCH = "ask_mismatch"
    """A script that goes on after an answer asks something else than was answered."""
    DECLINED = "declined"
    """The human who was asked would not answer."""
    AGENT_FAILED = "agent_failed"
    """What a task started with ``dicode.agent`` did not end well; the message has its last words.
    """
    TOO_LARGE = "too_large"
    """An input, body or value is over its limit."""
    RATE_LIMITED = "rate_limited"
    """Too many connections or calls at once."""
    NOT_SUPPORTED = "not_supported"
    """This version does not do that."""
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"
    """This machine cannot enforce what the task's permissions ask for."""
    SECRET_MISSING = "secret_missing"
    """A secret the task needs is not there."""
    SECRETS_LOCKED = "secrets_locked"
    """Stored secrets cannot be opened: the master key is gone, wrong or not private."""
    RUNTIME_UNAVAILABLE = "runtime_unavailable"
    """This machine lacks what the task's runtime needs."""
    STORAGE_FULL = "storage_full"
    """The disk is full: no new run is taken, reading works."""
    STORAGE_UNAVAILABLE = "storage_unavailable"
    """The database cannot be reached, or is locked."""
    ALREADY_RUNNING = "already_running"
    """Another server holds the data dir; the message names its pid."""
    PORT_IN_USE = "port_in_use"
    """Another program listens on the HTTP port."""
    DATA_DIR = "data_dir"
    """The data dir cannot be made, read or written."""
    SHUTTING_DOWN = "shutting_down"
    """The server is stopping and takes no more work."""
    UNREACHABLE = "unreachable"
    """No server answers."""
    INTERNAL = "internal"
    """A fault inside the server; its own log has the details."""


STORAGE_TROUBLE = frozenset({Code.STORAGE_FULL, Code.STORAGE_UNAVAILABLE})
"""The store cannot write or read now; the same call works once the disk or database does."""


class Retry(StrEnum):
    """What a caller may do with the same call after an error."""

    NEVER = "never"
    """The same call fails again."""
    BACKOFF = "backoff"
    """The same call may work later."""
    AFTER = "after"
    """The same call works once what the hint names is done."""


class DicodeError(Exception):
    """Something a caller should be told.

    ``message`` says what is wrong and where, ``hint`` what to do next; neither ever holds a
    secret or a rejected value that could be one. ``data`` is JSON-able detail.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        hint: str | None = None,
        data: Mapping[str, Any] | None = None,
        retry: Retry = Retry.NEVER,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.data: dict[str, Any] = dict(data or {})
        self.retry = retry

    def as_dict(self) -> dict[str, Any]:
        """Give the wire form shared by all surfaces: ``{code, message, hint?, data?}``."""
        out: dict[str, Any] = {"code": self.code.value, "message": self.message}
        if self.hint:
            out["hint"] = self.hint
        if self.data:
            out["data"] = self.data
        return out

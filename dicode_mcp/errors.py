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
    RUN_NOT_FOUND = "run_not_found"
    SOURCE_NOT_FOUND = "source_not_found"
    NOT_FOUND = "not_found"
    INVALID_PARAMS = "invalid_params"
    INVALID_ARGUMENT = "invalid_argument"
    INVALID_SPEC = "invalid_spec"
    INVALID_CONFIG = "invalid_config"
    TASK_NOT_READY = "task_not_ready"
    TASK_PAUSED = "task_paused"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    NOT_SUPPORTED = "not_supported"
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"
    SECRET_MISSING = "secret_missing"
    RUNTIME_UNAVAILABLE = "runtime_unavailable"
    STORAGE_FULL = "storage_full"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    ALREADY_RUNNING = "already_running"
    PORT_IN_USE = "port_in_use"
    DATA_DIR = "data_dir"
    SHUTTING_DOWN = "shutting_down"
    UNREACHABLE = "unreachable"
    INTERNAL = "internal"


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

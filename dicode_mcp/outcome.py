"""How a run ended, decided from what its process told and how it exited. Pure."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jsonschema import Draft202012Validator

from dicode_mcp.protocols import Exit, Report
from dicode_mcp.runs.model import Outcome, Reason, RunError, RunStatus
from dicode_mcp.spec.quantities import format_duration


def decide(
    exit: Exit,
    report: Report,
    *,
    now_ms: int,
    stop_reason: Reason | None = None,
    timeout_s: float | None = None,
    output_schema: Mapping[str, Any] | None = None,
    explained: RunError | None = None,
) -> Outcome:
    """Give the outcome of a run whose process is gone.

    ``stop_reason`` is why the server ended it, if it did; ``explained`` what the runtime says of
    an exit that the process itself did not report. A report of a result counts only when nobody
    ended the run before it was complete.
    """

    def ended(
        status: RunStatus, reason: str | None = None, error: RunError | None = None
    ) -> Outcome:
        return Outcome(
            status,
            now_ms,
            reason=reason,
            error=error,
            return_value=report.return_value if status is RunStatus.SUCCESS else None,
            output=report.output,
            exit_code=exit.exit_code,
            signal=exit.signal,
            cpu_ms=cpu_ms_of(exit),
        )

    if exit.timed_out:
        return ended(RunStatus.TIMEOUT, Reason.TIMEOUT, _timeout_error(timeout_s))
    if stop_reason is not None and exit.stopped:
        return ended(RunStatus.CANCELLED, stop_reason, _stop_error(stop_reason))
    if exit.limit is not None and (exit.signal is not None or report.error is not None):
        return ended(RunStatus.FAILURE, Reason.MEMORY_LIMIT, _limit_error(exit.limit))
    if report.error is not None and report.reason == Reason.DECLINED:
        # A human ended it: no failure to retry or to raise an alarm for.
        return ended(RunStatus.CANCELLED, Reason.DECLINED, report.error)
    if report.error is not None:
        error = _unreached(_pressed(report.error, exit.pressed), exit.unreached)
        return ended(RunStatus.FAILURE, report.reason or Reason.SCRIPT_ERROR, error)
    if exit.signal is not None:
        return ended(RunStatus.FAILURE, Reason.SIGNAL, explained or _signal_error(exit.signal))
    if exit.exit_code:
        return ended(RunStatus.FAILURE, Reason.EXIT_CODE, explained or _code_error(exit.exit_code))
    if not report.finished:
        return ended(RunStatus.FAILURE, Reason.EXITED_EARLY, explained or _EXITED_EARLY)
    mismatch = _schema_error(report.return_value, output_schema)
    if mismatch is not None:
        return ended(RunStatus.FAILURE, Reason.OUTPUT_SCHEMA, mismatch)
    return ended(RunStatus.SUCCESS)


def cpu_ms_of(exit: Exit) -> int | None:
    """Give the processor time of a process tree, where it is known."""
    return None if exit.cpu_seconds is None else round(exit.cpu_seconds * 1000)


_EXITED_EARLY = RunError(
    Reason.EXITED_EARLY,
    "the process ended with exit code 0 before the script had finished",
    "look for os._exit or a library that ends the process; return from main() instead",
)


def _timeout_error(timeout_s: float | None) -> RunError:
    limit = format_duration(timeout_s) if timeout_s else "its limit"
    return RunError(
        Reason.TIMEOUT,
        f"the run took longer than {limit} and was ended",
        "raise `timeout` in task.yaml, or make the task quicker; the log shows how far it came",
    )


def _stop_error(reason: Reason) -> RunError:
    if reason is Reason.SHUTDOWN:
        return RunError(
            reason,
            "the server stopped while this run was on",
            "call run_task again if it may repeat",
        )
    if reason is Reason.REPLACED:
        return RunError(
            reason,
            "a newer run took this one's place (concurrency.overlap: replace); or it was a daemon's"
            " and its task was changed, paused, disabled or removed",
        )
    return RunError(reason, "the run was cancelled")


def _signal_error(number: int) -> RunError:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return RunError(
        Reason.SIGNAL,
        f"the process was ended by {name}",
        "a crash in native code, or the machine ran out of memory (SIGKILL)",
    )


def _code_error(code: int) -> RunError:
    return RunError(
        Reason.EXIT_CODE, f"the process ended with exit code {code}", "the log shows its last words"
    )


def _limit_error(limit: str) -> RunError:
    return RunError(
        Reason.MEMORY_LIMIT,
        f"{limit} reached: the run used more and was ended",
        "read large data in pieces, or raise resources.memory in task.yaml (at most "
        "execution.max_memory of dicode.yaml)",
    )


def _pressed(error: RunError, limit: str | None) -> RunError:
    if limit is None:
        return error
    hint = f"the run had reached its {limit}: raise resources.pids in task.yaml"
    return replace(error, hint=f"{error.hint}; {hint}" if error.hint else hint)


def _unreached(error: RunError, rules: Sequence[str]) -> RunError:
    """Name what the network gate refused; most libraries say only that a connection failed."""
    if not rules or "permissions.net" in (error.hint or ""):
        return error
    listed = ", ".join(f'"{rule}"' for rule in rules)
    hint = f"the run was refused connections; add to task.yaml: permissions.net: [{listed}]"
    return replace(error, hint=f"{error.hint}; {hint}" if error.hint else hint)


def _schema_error(value: str | None, schema: Mapping[str, Any] | None) -> RunError | None:
    if schema is None:
        return None
    check: Any = Draft202012Validator(dict(schema))
    problems = sorted(
        f"{error.json_path}: breaks the rule '{error.validator}'"
        for error in check.iter_errors(json.loads(value) if value is not None else None)
    )
    if not problems:
        return None
    return RunError(
        Reason.OUTPUT_SCHEMA,
        "the return value does not fit output_schema: " + "; ".join(problems[:5]),
        "return what output_schema in task.yaml declares, or change the schema",
    )

"""How a run ended, decided from what its process told and how it exited. Pure."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jsonschema import Draft202012Validator

from dicode_mcp.protocols import Exit, Report
from dicode_mcp.runs.accesses import Access, lines_for
from dicode_mcp.runs.model import Outcome, Output, Reason, RunError, RunStatus
from dicode_mcp.runs.redaction import Redactor
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
    refused: Sequence[Access] = (),
) -> Outcome:
    """Give the outcome of a run whose process is gone.

    ``stop_reason`` is why the server ended it, if it did; ``explained`` what the runtime says of
    an exit that the process itself did not report; ``refused`` what it was refused. A report of a
    result counts only when nobody ended the run before it was complete.
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
            unenforced="; ".join(exit.unheld) or None,
        )

    if exit.timed_out:
        error = _pressed(_timeout_error(timeout_s, exit.limit), exit)
        return ended(RunStatus.TIMEOUT, Reason.TIMEOUT, error)
    if stop_reason is not None and exit.stopped:
        return ended(RunStatus.CANCELLED, stop_reason, _stop_error(stop_reason))
    if exit.limit is not None and (exit.signal is not None or report.error is not None):
        error = _limit_error(exit.limit, exit.limited)
        return ended(RunStatus.FAILURE, Reason(error.code), error)
    if report.error is not None and report.reason == Reason.DECLINED:
        # A human ended it: no failure to retry or to raise an alarm for.
        return ended(RunStatus.CANCELLED, Reason.DECLINED, report.error)
    if report.error is not None:
        error = _unreached(_pressed(report.error, exit), exit.unreached)
        error = _denied(error, refused)
        return ended(RunStatus.FAILURE, report.reason or Reason.SCRIPT_ERROR, error)
    if exit.signal is not None:
        return ended(RunStatus.FAILURE, Reason.SIGNAL, explained or _signal_error(exit.signal))
    if exit.exit_code:
        error = explained or _code_error(exit.exit_code)
        return ended(RunStatus.FAILURE, Reason.EXIT_CODE, _denied(error, refused))
    if not report.finished:
        return ended(RunStatus.FAILURE, Reason.EXITED_EARLY, explained or _EXITED_EARLY)
    mismatch = _schema_error(report.return_value, output_schema)
    if mismatch is not None:
        return ended(RunStatus.FAILURE, Reason.OUTPUT_SCHEMA, mismatch)
    return ended(RunStatus.SUCCESS)


def cpu_ms_of(exit: Exit) -> int | None:
    """Give the processor time of a process tree, where it is known."""
    return None if exit.cpu_seconds is None else round(exit.cpu_seconds * 1000)


def without_secrets(outcome: Outcome, hide: Redactor) -> Outcome:
    """Give an outcome in which no secret of the run can be read."""
    if not hide:
        return outcome
    value = outcome.return_value
    return replace(
        outcome,
        return_value=None if value is None else hide.json_text(value),
        output=None if outcome.output is None else _hidden_output(outcome.output, hide),
        error=None if outcome.error is None else _hidden_error(outcome.error, hide),
    )


def _hidden_output(output: Output, hide: Redactor) -> Output:
    if output.base64:
        data = hide.data(base64.b64decode(output.body))
        body = base64.b64encode(data).decode("ascii")
    else:
        body = hide.text(output.body)
    return replace(
        output,
        body=body,
        content_type=hide.text(output.content_type),
        name=None if output.name is None else hide.text(output.name),
        data=hide.value(output.data),
    )


def _hidden_error(error: RunError, hide: Redactor) -> RunError:
    texts = {
        name: hide.text(text)
        for name in ("code", "message", "hint", "file", "traceback")
        if isinstance(text := getattr(error, name), str)
    }
    return replace(error, **texts)


_EXITED_EARLY = RunError(
    Reason.EXITED_EARLY,
    "the process ended with exit code 0 before the script had finished",
    "look for os._exit or a library that ends the process; return from main() instead",
)


def _timeout_error(timeout_s: float | None, limit: str | None) -> RunError:
    allowed = format_duration(timeout_s) if timeout_s else "its limit"
    hint = "raise `timeout` in task.yaml, or make the task quicker; the log shows how far it came"
    if limit is not None:
        hint = f"a part of the run had been ended by its {limit} before; {hint}"
    return RunError(Reason.TIMEOUT, f"the run took longer than {allowed} and was ended", hint)


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


def _limit_error(limit: str, kind: str) -> RunError:
    reason, hint = _LIMITS[kind]
    return RunError(reason, f"{limit} reached: the run used more and was ended", hint)


_LIMITS = {
    "memory": (
        Reason.MEMORY_LIMIT,
        "read large data in pieces, or raise resources.memory in task.yaml (at most "
        "execution.max_memory of dicode.yaml)",
    ),
    "pids": (
        Reason.PIDS_LIMIT,
        "start fewer processes and threads at once, or raise resources.pids in task.yaml (at most "
        "execution.max_pids of dicode.yaml)",
    ),
}


def _pressed(error: RunError, exit: Exit) -> RunError:
    if exit.pressed is None:
        return error
    hint = f"the run had reached its {exit.pressed}: raise resources.{exit.pressing} in task.yaml"
    return replace(error, hint=f"{error.hint}; {hint}" if error.hint else hint)


def _unreached(error: RunError, rules: Sequence[str]) -> RunError:
    """Name what the network gate refused; most libraries say only that a connection failed."""
    if not rules or "permissions.net" in (error.hint or ""):
        return error
    listed = ", ".join(f'"{rule}"' for rule in rules)
    hint = f"the run was refused connections; add to task.yaml: permissions.net: [{listed}]"
    return replace(error, hint=f"{error.hint}; {hint}" if error.hint else hint)


def _denied(error: RunError, refused: Sequence[Access]) -> RunError:
    """Name what was refused when the error does not: libraries often say something else.

    Not whether it is there: whoever reads errors of a task may not be one who may know.
    """
    if not refused or "permissions." in (error.hint or ""):
        return error
    hint = (
        "the run was refused what it asked for; if that is why it failed, add to task.yaml: "
        + "; ".join(lines_for(refused)[:_MOST_LINES])
    )
    return replace(error, hint=f"{error.hint}; {hint}" if error.hint else hint)


_MOST_LINES = 5


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

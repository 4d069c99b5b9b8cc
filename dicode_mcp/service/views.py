"""The shapes every surface shows (SPEC 6.2): plain JSON-able dicts, absent rather than null."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dicode_mcp.clock import iso
from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.protocols import Revision
from dicode_mcp.registry import Entry, ShownDev, SourceState
from dicode_mcp.runs.logs import LogLine
from dicode_mcp.runs.model import Output, Run, RunError, RunStatus
from dicode_mcp.runs.questions import Question
from dicode_mcp.runs.sensitive import hidden
from dicode_mcp.spec.problems import Problem
from dicode_mcp.spec.taskset.explain import Explained, Source

SHOWN_BROKEN = 10
"""How many broken tasks a source shows."""
SHOWN_PROBLEMS = 20
"""How many places that were not read a source shows."""
_FAULT_CHARS = 300


def condition_view(condition: Condition) -> dict[str, Any]:
    """Show a condition; ``status`` is "True" or "False", as Kubernetes writes it."""
    return _compact(
        type=condition.type.value,
        status=str(condition.status),
        reason=condition.reason,
        message=condition.message or None,
        since=iso(condition.since_ms) if condition.since_ms else None,
    )


def problem_view(problem: Problem) -> dict[str, Any]:
    """Show one problem of a file."""
    return _compact(
        file=problem.file,
        line=problem.line,
        column=problem.column,
        path=problem.path or None,
        message=problem.message,
        hint=problem.hint,
    )


def origin_view(explained: Explained) -> dict[str, Any]:
    """Show where one value of a manifest is written, and what it won over, nearest first."""
    over = [_written_view(source) for source in explained.over]
    return _compact(path=explained.path, **_written_view(explained.source), over=over or None)


def _written_view(source: Source) -> dict[str, Any]:
    return _compact(layer=source.layer, file=source.file or None, line=source.line or None)


def is_paused(entry: Entry) -> bool:
    """Tell whether a stored pause is on the task."""
    paused = find(entry.conditions, ConditionType.PAUSED)
    return paused is not None and paused.status


def state_of(entry: Entry) -> str:
    """Say how a task stands, pauses aside.

    ``ready pending_approval conflict broken unavailable``.

    ``pending_approval``: what is written waits for a human. ``conflict``: another owns its id or
    webhook path. ``broken``: what is written is not in force or cannot be served. ``unavailable``:
    this machine lacks what its runtime needs.
    """
    if entry.contested:
        return "conflict"
    if entry.waiting is not None:
        return "pending_approval"
    ready = find(entry.conditions, ConditionType.READY)
    if entry.task is None or (ready is not None and not ready.status):
        return "broken"
    runtime = find(entry.conditions, ConditionType.RUNTIME)
    return "ready" if runtime is None or runtime.status else "unavailable"


def task_view(
    entry: Entry,
    *,
    last_run: Run | None = None,
    next_run_ms: int | None = None,
    dev_mode: bool = False,
    base_url: str | None = None,
) -> dict[str, Any]:
    """Show a task as listings do; a task that never loaded has neither runtime nor trigger.

    ``dev_mode``: whether its source is in dev mode; shown only then. ``base_url`` is what the
    server is called by, for the whole address of a webhook.
    """
    task = entry.task
    view = _compact(
        id=entry.id,
        name=task.spec.name if task else entry.id.rsplit("/", 1)[-1],
        description=(task.spec.description or None) if task else None,
        tags=list(task.spec.tags) if task and task.spec.tags else None,
        runtime=task.spec.runtime if task else None,
        trigger=_trigger_view(task.manifest) if task else None,
        webhook_url=_webhook_url(entry, base_url),
        enabled=task is not None and not is_paused(entry),
        kept=entry.kept or None,
        hash=task.short_hash if task else None,
        source=entry.source,
        dev_mode=True if dev_mode else None,
        revision=task.revision if task else None,
        conditions=[condition_view(c) for c in entry.conditions],
        next_run=iso(next_run_ms) if next_run_ms else None,
        last_run=run_line(last_run) if last_run else None,
    )
    return view


def task_detail(
    entry: Entry,
    *,
    last_run: Run | None = None,
    next_run_ms: int | None = None,
    dev_mode: bool = False,
    base_url: str | None = None,
) -> dict[str, Any]:
    """Show a task whole: the effective manifest, where it lies, what is wrong with its file."""
    view = task_view(
        entry,
        last_run=last_run,
        next_run_ms=next_run_ms,
        dev_mode=dev_mode,
        base_url=base_url,
    )
    task = entry.task
    if task is not None:
        view["hash"] = task.digest
        view["spec"] = dict(task.manifest or {})
    view["folder"] = str(entry.folder)
    if entry.problems:
        view["problems"] = [problem_view(p) for p in entry.problems]
    return view


def run_line(run: Run) -> dict[str, Any]:
    """Show a run as listings do: no return value, output or traceback."""
    return _compact(
        run_id=run.id,
        task=run.task_id,
        status=run.status.value,
        trigger=run.trigger.value,
        created_at=iso(run.created_at_ms),
        started_at=iso(run.started_at_ms) if run.started_at_ms else None,
        finished_at=iso(run.finished_at_ms) if run.finished_at_ms else None,
        duration_ms=run.duration_ms,
        reason=run.reason,
        error=_error_line(run.error),
        attempt=run.attempt,
        parent_run_id=run.parent_run_id,
        replay_of=run.replay_of,
        revision=run.revision,
        hash=run.task_hash[:6] or None,
        pinned=run.pinned or None,
    )


def run_detail(
    run: Run, tail: Sequence[LogLine] = (), asked: Sequence[Question] = ()
) -> dict[str, Any]:
    """Show a run whole. A run that failed names the next useful call under ``next``.

    ``asked`` are its questions: the one it waits for is shown whole, the others as they ended.
    """
    view = run_line(run)
    if asked and run.status is RunStatus.WAITING:
        view["question"] = question_view(asked[-1])
    answers = [answer_view(question) for question in asked if question.answered is not None]
    if answers:
        view["answers"] = answers
    if run.error is not None:
        view["error"] = _error_detail(run.error)
    if run.return_value is not None:
        view["return_value"] = json.loads(run.return_value)
    if run.output is not None:
        view["output"] = output_view(run.output)
    if run.root_run_id and run.root_run_id != run.id:
        view["root_run_id"] = run.root_run_id
    view.update(_compact(exit_code=run.exit_code or None, signal=run.signal))
    view.update(
        _compact(
            slot=iso(run.slot_ms) if run.slot_ms else None,
            catchup=run.catchup or None,
            delay_ms=_delay_ms(run),
            priority=run.priority or None,
            cpu_ms=run.cpu_ms,
            tokens=run.tokens,
            unenforced=run.unenforced,
        )
    )
    view["logs_tail"] = [log_view(line) for line in tail]
    following = next_step(run)
    if following:
        view["next"] = following
    return view


def _delay_ms(run: Run) -> int | None:
    """Give how long a run waited to start: from its cron slot, its time, or its making."""
    if run.started_at_ms is None:
        return None
    meant = run.not_before_ms or run.slot_ms or run.created_at_ms
    return max(0, run.started_at_ms - meant)


def next_step(run: Run) -> str | None:
    """Say which call helps most with a run in this state."""
    if run.status is RunStatus.WAITING:
        return (
            f'answer_run with run_id "{run.id}", question (its number) and answer, once the user'
            " has said what to answer"
        )
    if not run.status.ended:
        return f'get_run with run_id "{run.id}" and wait_seconds to wait for its end'
    if run.status is RunStatus.SUCCESS:
        return None
    if run.error is not None and run.error.file:
        place = f"{run.error.file}:{run.error.line}" if run.error.line else run.error.file
        return (
            f"look at {place} of task {run.task_id}, mend it, then run_task again;"
            f' get_logs with run_id "{run.id}" has the whole log'
        )
    return f'get_logs with run_id "{run.id}" has the whole log; get_task shows what was declared'


def question_view(question: Question) -> dict[str, Any]:
    """Show a question that is open."""
    return {
        "number": question.n,
        "message": question.message,
        "schema": dict(question.schema),
        "asked_at": iso(question.asked_at_ms),
        "deadline": iso(question.deadline_ms),
    }


def question_line(question: Question) -> dict[str, Any]:
    """Show an open question as listings do."""
    return {
        "number": question.n,
        "message": _short(question.message),
        "deadline": iso(question.deadline_ms),
    }


def answer_view(question: Question) -> dict[str, Any]:
    """Show what was answered to a question, and who did it."""
    done = question.answered
    assert done is not None
    return _compact(
        number=question.n,
        message=_short(question.message),
        answer=None if done.value is None else hidden(done.value),
        declined=done.declined or None,
        answered_at=iso(done.at_ms),
        by=done.actor,
        via=done.channel,
    )


def output_view(output: Output) -> dict[str, Any]:
    """Show what a task displayed."""
    return _compact(
        kind=output.kind,
        content_type=output.content_type,
        body=output.body,
        base64=output.base64 or None,
        name=output.name,
        data=output.data,
    )


def log_view(line: LogLine) -> dict[str, Any]:
    """Show one log line."""
    return {
        "seq": line.seq,
        "ts": iso(line.ts_ms),
        "level": line.level.label,
        "message": line.message,
    }


def source_view(state: SourceState) -> dict[str, Any]:
    """Show a source, its first problems and broken tasks, and how to see the rest."""
    commit = state.revision.commit if state.revision else None
    broken = state.broken[:SHOWN_BROKEN]
    rest = len(state.broken) - len(broken)
    return _compact(
        name=state.name,
        type=state.kind,
        path=state.location if state.kind == "local" else None,
        url=state.location if state.kind == "git" else None,
        revision=commit,
        commit=_commit_view(state.revision),
        dev_mode=state.dev_mode,
        dev=_dev_view(state.dev) if state.dev else None,
        tasks=state.task_count,
        conditions=[condition_view(c) for c in state.conditions],
        problems=_problems_view(state.problems) or None,
        broken=[{"id": task_id, "message": _short(fault)} for task_id, fault in broken] or None,
        off=[{"id": task_id, "message": why} for task_id, why in state.off[:SHOWN_BROKEN]] or None,
        broken_count=len(state.broken) or None,
        broken_rest=_rest(state.name, rest) if rest else None,
    )


def _problems_view(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    shown = [problem_view(problem) for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        shown.append({"message": f"and {len(problems) - SHOWN_PROBLEMS} more"})
    return shown


def _short(fault: str) -> str:
    text = "; ".join(line.strip() for line in fault.splitlines() if line.strip())
    return text if len(text) <= _FAULT_CHARS else f"{text[:_FAULT_CHARS]}…"


def _rest(source: str, count: int) -> str:
    return (
        f"{count} more: list_tasks with source {json.dumps(source, ensure_ascii=False)} and "
        'status "broken" (then "conflict") shows all of them'
    )


def _commit_view(revision: Revision | None) -> dict[str, Any] | None:
    """Show who made the commit in force, when, and what they said of it."""
    info = revision.commit_info if revision else None
    return (
        _compact(author=info.author, subject=info.subject, time=iso(info.at_ms)) if info else None
    )


def _dev_view(dev: ShownDev) -> dict[str, Any]:
    """Show dev mode: what was asked for, and the folder whose files are in force."""
    return _compact(
        local_path=dev.mode.local_path,
        branch=dev.mode.branch,
        folder=str(dev.folder) if dev.folder else None,
        dev_refs_only=True if dev.folder is None else None,
    )


def _webhook_url(entry: Entry, base_url: str | None) -> str | None:
    path = entry.task.spec.trigger.webhook if entry.task else None
    if path is None or base_url is None or entry.contested:
        return None
    return base_url + path


def _trigger_view(manifest: Mapping[str, Any] | None) -> Any:
    return dict(manifest or {}).get("trigger")


def _error_line(error: RunError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return _compact(
        code=error.code, message=error.message, hint=error.hint, file=error.file, line=error.line
    )


def _error_detail(error: RunError) -> dict[str, Any]:
    return {**(_error_line(error) or {}), **_compact(traceback=error.traceback)}


def _compact(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def conditions_text(conditions: Iterable[Condition]) -> str:
    """Write conditions on one line, for logs."""
    return ", ".join(f"{c.type.value}={c.status} ({c.reason})" for c in conditions)

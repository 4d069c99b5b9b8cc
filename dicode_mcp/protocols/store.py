"""What the house asks of the place where state is kept."""

from __future__ import annotations

from collections.abc import (
    Collection,
    Mapping,
    Sequence,
)
from typing import Protocol

from dicode_mcp.protocols.records import (
    Approval,
    AuditEntry,
    AuditQuery,
    BearerKey,
    DayPage,
    DayQuery,
    LogPage,
    LogQuery,
    Page,
    Pause,
    PruneQuery,
    RunQuery,
    RunsSize,
    SealedSecret,
)
from dicode_mcp.protocols.sources import SourceOverrides
from dicode_mcp.runs.budget import DaySpent
from dicode_mcp.runs.joins import Joins
from dicode_mcp.runs.logs import LogLine
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus
from dicode_mcp.runs.notices import NoticeChange, NoticeState
from dicode_mcp.runs.questions import Answered, Question


class Store(Protocol):
    """What is kept. Every write is durable when its call returns, except log lines (0.5 s).

    A write that raises has stored nothing. A full disk raises ``DicodeError(STORAGE_FULL)`` and
    leaves what is stored readable: new runs and kv values are refused first, while a reserve lasts
    for ending runs, pauses, slots, audit and deletes. A database that another process locks for
    over 5 s, or that cannot be used, raises STORAGE_UNAVAILABLE; a closed store SHUTTING_DOWN.
    A write that was begun is finished even when the caller stops waiting for it.

    Lists of runs (``list_runs``, ``last_runs``, ``unfinished_runs``) give them without
    ``return_value`` and ``output``, and with errors that have no traceback and texts of at most
    1,000 characters. ``get_run`` gives all.
    """

    async def instance_id(self) -> str:
        """Give the id of this data dir, made once."""
        ...

    async def add_run(self, run: Run, payload: Payload) -> Run:
        """Commit a run in its given status with its payload.

        With an idempotency key already used for the task in the last 24 h, or a cron slot already
        taken, nothing is written and the run that has it is returned (its id differs). Follow-ups
        of ``finish_run`` are added by the same rules. A run with ``slot_ms`` also moves the task's
        schedule slot forward. Raises CONFLICT when the id is taken, INVALID_ARGUMENT when the
        payload is not JSON.
        """
        ...

    async def start_run(
        self,
        run_id: str,
        *,
        now_ms: int,
        task_hash: str,
        revision: str | None,
        spent: DaySpent | None = None,
    ) -> Run:
        """Claim a queued run: running, fence + 1. Raises CONFLICT when it is not queued.

        ``spent`` is added to what the task spent that day, here and in ``finish_run``, in the same
        transaction. Raises RUN_NOT_FOUND for an unknown run.
        """
        ...

    async def finish_run(
        self,
        run: Run,
        outcome: Outcome,
        follow_ups: Sequence[tuple[Run, Payload | None]] = (),
        *,
        notice: NoticeChange | None = None,
        joins: Joins | None = None,
        keep_input: bool = True,
        spent: DaySpent | None = None,
    ) -> Run:
        """End a run and add what follows from it, in one transaction.

        A follow-up without a payload is started with what ``run`` was started with.
        ``notice`` moves what is known of a task's notices, and may add one more run. After all
        of these ``runs.joins.settle`` is carried out for ``joins``. Without ``keep_input`` the
        run's own payload is let go, as ``drop_inputs`` does.
        Raises CONFLICT when the run's stored status or fence no longer fits ``run``, and
        RUN_NOT_FOUND for an unknown run. Nothing is written then.
        """
        ...

    async def get_run(self, run_id: str) -> Run | None:
        """Read a run, with its values."""
        ...

    async def attempts(self, run_id: str) -> Sequence[Run]:
        """Give every attempt of the wish a run belongs to (``retry_of``), itself too, in order.

        In their listed form; empty for an unknown run.
        """
        ...

    async def tree(self, root_run_id: str, limit: int) -> Sequence[Run]:
        """Give the first ``limit`` runs under a root: itself, then the others, oldest first.

        In their listed form.
        """
        ...

    # ── Questions ──

    async def suspend_run(
        self, run: Run, question: Question, *, cpu_ms: int | None = None, tokens: int | None = None
    ) -> Run:
        """Let a running run wait for an answer: its status and the question, in one transaction.

        Raises CONFLICT when the run's stored status or fence no longer fits ``run``, RUN_NOT_FOUND
        for an unknown run. Nothing is written then.
        """
        ...

    async def answer_question(self, run_id: str, n: int, answered: Answered) -> Run:
        """Keep the answer to question ``n`` and queue its run again, in one transaction.

        The one write that can succeed for a question. Raises RUN_NOT_FOUND, and CONFLICT when it
        was answered already (the message says by whom and when) or its run does not wait for it.
        """
        ...

    async def questions(self, run_id: str) -> Sequence[Question]:
        """Give all questions of a run in the order they were asked."""
        ...

    async def open_questions(self, run_ids: Sequence[str] | None = None) -> Sequence[Question]:
        """Give the questions that runs wait for, by deadline; of all runs, or of these."""
        ...

    async def once_get(self, run_id: str, key: str) -> str | None:
        """Read what ``once_put`` kept for a run (JSON text)."""
        ...

    async def once_put(self, run_id: str, key: str, value: str) -> str:
        """Keep a value (JSON text) for as long as the run is kept; gives the one that is kept.

        The first one stays. Raises RUN_NOT_FOUND for an unknown run, and TOO_LARGE when the run
        keeps 1,000 values.
        """
        ...

    async def get_hidden(self, run_id: str) -> str | None:
        """Read what ``put_hidden`` kept for a run (JSON text)."""
        ...

    async def put_hidden(self, run_id: str, values: str) -> None:
        """Keep which values a run must not show (JSON text), for as long as the run is kept.

        What was kept before is replaced. Sealed as payloads are; no task can read it. Raises
        RUN_NOT_FOUND for an unknown run.
        """
        ...

    async def get_payload(self, run_id: str) -> Payload | None:
        """Read what a run was started with; None when there is no such run."""
        ...

    async def list_runs(self, query: RunQuery) -> Page[Run]:
        """List runs, newest first. A malformed cursor raises INVALID_ARGUMENT."""
        ...

    async def last_runs(self, task_ids: Sequence[str]) -> Mapping[str, Run]:
        """Give the newest run of each task that has one."""
        ...

    async def count_runs(self, *, since_ms: int | None = None) -> Mapping[RunStatus, int]:
        """Count runs by status, those created since ``since_ms``; statuses with none are absent.

        Reads an index entry for each run counted: some 40 ms for a million.
        """
        ...

    async def unfinished_runs(self) -> Sequence[Run]:
        """Give every run that has not ended, oldest first."""
        ...

    async def delete_runs(self, run_ids: Sequence[str]) -> int:
        """Delete runs that have ended, with payload, values, idempotency keys and log.

        Unknown, unfinished and pinned ones are left alone. Gives how many were deleted.
        """
        ...

    async def matching_runs(self, query: RunQuery, *, at_most: int) -> int:
        """Count the runs that a query (without its paging) finds, but stop at ``at_most``."""
        ...

    async def return_values(
        self, run_ids: Sequence[str], *, at_most: int
    ) -> Mapping[str, str | None]:
        """Give the return values (JSON text) of the runs that have one.

        None stands for one of more than ``at_most`` bytes.
        """
        ...

    async def pin_run(self, run_id: str, pinned: bool) -> Run:
        """Keep a run whatever the retention says, or no longer. Raises RUN_NOT_FOUND."""
        ...

    # ── History ──

    async def run_days(self, query: DayQuery) -> DayPage:
        """Give what is kept of the runs that ended, by task and day; pruning takes none of it."""
        ...

    async def tasks_with_runs(self, *, after: str = "", limit: int = 100) -> Sequence[str]:
        """Give the ids of tasks that have runs, sorted, those greater than ``after``."""
        ...

    async def prunable_runs(self, query: PruneQuery) -> Page[str]:
        """Give ids of runs that may go by ``query``, oldest first.

        Never a run that is pinned or has not ended, nor one that an unfinished run refers to or
        shares its root with. A page may be short, or empty, and still have a cursor.
        """
        ...

    async def size_of_runs(self, run_ids: Sequence[str]) -> RunsSize:
        """Measure what runs take; unknown ones take nothing."""
        ...

    async def runs_with_input(
        self, task_id: str, *, ended_before_ms: int, limit: int = 200, cursor: str | None = None
    ) -> Page[str]:
        """Give ids of a task's ended runs, oldest first, that still have what they began with.

        Pinned ones are left out. A page may be short, or empty, and still have a cursor.
        """
        ...

    async def drop_inputs(self, run_ids: Sequence[str]) -> int:
        """Forget what ended runs began with; ``get_payload`` says ``dropped`` from then on.

        Unfinished and pinned ones are left alone. Gives how many had something to forget.
        """
        ...

    async def drop_expired_keys(self, *, now_ms: int, limit: int = 500) -> int:
        """Forget idempotency keys that stand for nothing any more; gives how many, up to limit."""
        ...

    async def append_logs(self, run_id: str, lines: Sequence[LogLine]) -> None:
        """Take lines, ``seq`` rising; they are readable at once and on disk within half a second.

        Never fails for want of a disk: lines it will not take are dropped, and one line in their
        place says how many. Waits when lines come much faster than the disk takes them.
        """
        ...

    async def flush_logs(self, run_id: str) -> None:
        """Return when the lines of a run are on disk (or dropped); call it when the run ends."""
        ...

    async def trim_logs(self, run_id: str, *, after: int, before: int) -> None:
        """Drop lines of a run with a seq between the two, which both stay, to make room.

        One line in their place, with the seq of the last of them, says how many they were. Some at
        either end may stay. ``after`` is the same for all calls of a run; ``before`` rises.
        """
        ...

    async def read_logs(self, run_id: str, query: LogQuery) -> LogPage:
        """Read a run's log; empty for an unknown run."""
        ...

    async def kv_get(self, task_id: str, key: str) -> str | None:
        """Read a value (JSON text)."""
        ...

    async def kv_set(self, task_id: str, key: str, value: str, *, now_ms: int) -> None:
        """Write a value (JSON text)."""
        ...

    async def kv_delete(self, task_id: str, key: str) -> bool:
        """Remove a value; tells whether there was one."""
        ...

    async def kv_list(self, task_id: str, prefix: str = "") -> Sequence[str]:
        """List keys with a prefix, sorted."""
        ...

    async def undelivered_notices(self) -> Mapping[str, NoticeState]:
        """Give what is known of the tasks whose last notice did not get through."""
        ...

    async def set_pause(self, pause: Pause) -> None:
        """Pause a task."""
        ...

    async def clear_pause(self, task_id: str) -> bool:
        """End a pause; tells whether there was one."""
        ...

    async def pauses(self) -> Mapping[str, Pause]:
        """Give all pauses by task."""
        ...

    async def set_source_overrides(self, source: str, overrides: SourceOverrides) -> None:
        """Keep what was decided for a source; overrides without content are forgotten."""
        ...

    async def source_overrides(self) -> Mapping[str, SourceOverrides]:
        """Give what was decided, by source, for those where something was."""
        ...

    async def add_approval(self, approval: Approval) -> None:
        """Keep an approval; one of the same task and hash is replaced."""
        ...

    async def clear_approvals(self, task_id: str) -> int:
        """Forget the approvals of a task; gives how many there were."""
        ...

    async def approvals(self) -> Mapping[str, Sequence[Approval]]:
        """Give all approvals by task, oldest first."""
        ...

    async def claim_signatures(self, keys: Sequence[str], *, now_ms: int, expires_ms: int) -> bool:
        """Take signatures of a webhook as used until ``expires_ms``, all or none.

        False when one of them is used already. Those past their time are forgotten.
        """
        ...

    async def release_signatures(self, keys: Sequence[str]) -> None:
        """Forget signatures whose message started nothing."""
        ...

    async def note_tokens(self, run_id: str, total: int, spent: DaySpent | None) -> None:
        """Keep the tokens a running run used so far, and add to what its task spent that day."""
        ...

    async def spending(self, *, since_day: str) -> Sequence[DaySpent]:
        """Give what tasks spent on a day and later ones."""
        ...

    async def forget_spending(self, *, before_day: str) -> int:
        """Forget what was spent before a day; gives how many rows."""
        ...

    async def put_secrets(self, secrets: Sequence[SealedSecret]) -> None:
        """Keep sealed secrets, all or none; one of the same name is replaced."""
        ...

    async def delete_secret(self, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        ...

    async def secrets(self) -> Mapping[str, SealedSecret]:
        """Give all sealed secrets by name, the server's own (their names begin with ".") too."""
        ...

    async def put_key(self, key: BearerKey) -> None:
        """Keep a bearer key; one of the same id is replaced."""
        ...

    async def keys(self) -> Sequence[BearerKey]:
        """Give all bearer keys, oldest first, revoked and expired ones too."""
        ...

    async def put_accesses(self, texts: Mapping[str, str]) -> None:
        """Keep, by task, what its last runs used (``runs.accesses.encode``), in place of before."""
        ...

    async def accesses(self, task_id: str) -> str | None:
        """Give what a task's last runs used."""
        ...

    async def forget_accesses(self, *, keep: Collection[str]) -> int:
        """Forget what tasks used other than those to keep; gives how many they were."""
        ...

    async def schedule_slots(self) -> Mapping[str, int]:
        """Give the last fired cron slot of each task (epoch ms)."""
        ...

    async def set_schedule_slot(self, task_id: str, slot_ms: int) -> None:
        """Note a slot as dealt with, without a run."""
        ...

    async def append_audit(self, entries: Sequence[AuditEntry], head: str) -> None:
        """Write audit entries in order, and the new head of their chain, all or none."""
        ...

    async def audit_head(self) -> str | None:
        """Give the head of the audit chain as it was written last; None when it never was."""
        ...

    async def list_audit(
        self,
        *,
        limit: int = 100,
        before_id: int | None = None,
        after_id: int | None = None,
        query: AuditQuery | None = None,
    ) -> Page[AuditEntry]:
        """List audit entries, newest first; ``next_cursor`` is the next ``before_id``.

        With ``after_id`` (0: from the first on) oldest first; it is the next ``after_id`` then.
        """
        ...

"""The store on two SQLite files: ``state.db``, durable at every answer, and ``logs.db``.

It hands plain functions (``rows/``) to the threads that own the connections; the event loop never
waits for a disk.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import (
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
    SourceOverrides,
)
from dicode_mcp.runs.budget import DaySpent
from dicode_mcp.runs.joins import Joins, settle
from dicode_mcp.runs.logs import LogLine
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus
from dicode_mcp.runs.notices import NoticeChange, NoticeState
from dicode_mcp.runs.questions import Answered, Question
from dicode_mcp.store import codec, log_reader
from dicode_mcp.store.answers import Answers
from dicode_mcp.store.bodies import PLAIN, Bodies
from dicode_mcp.store.database import Database, give_back
from dicode_mcp.store.faults import storage_full, translate
from dicode_mcp.store.log_book import Batch, LogBook
from dicode_mcp.store.opening import Opened, open_database
from dicode_mcp.store.reader import ReaderPool
from dicode_mcp.store.reserve import MIB, Reserve
from dicode_mcp.store.rows import accesses as access_rows
from dicode_mcp.store.rows import (
    approvals,
    audit,
    budgets,
    chunks,
    days,
    kv,
    listing,
    meta,
    notices,
    pauses,
    pruning,
    questions,
    resealing,
    runs,
    schedule,
    signatures,
    source_states,
)
from dicode_mcp.store.rows import joins as join_rows
from dicode_mcp.store.rows import keys as key_rows
from dicode_mcp.store.rows import secrets as secret_rows
from dicode_mcp.store.schema import LOGS_SCHEMA, STATE_SCHEMA
from dicode_mcp.store.writer import GroupWriter

_DELETED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Files:
    state: Opened
    logs: Opened
    instance_id: str


class SqliteStore:
    """A ``Store`` in a data dir, opened with ``SqliteStore.open``."""

    def __init__(
        self,
        instance_id: str,
        state: GroupWriter,
        state_readers: ReaderPool,
        logs: GroupWriter,
        log_readers: ReaderPool,
        reserve: Reserve,
        bodies: Bodies = PLAIN,
    ) -> None:
        self._instance_id = instance_id
        self._state = state
        self._state_readers = state_readers
        self._logs = logs
        self._log_readers = log_readers
        self._reserve = reserve
        self._bodies = bodies
        self._book = LogBook(self._write_lines)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        data_dir: Path,
        clock: Clock,
        *,
        ballast_bytes: int = 64 * MIB,
        ballast_min_free: int = 1024 * MIB,
        lock_timeout_s: float = 5.0,
    ) -> AsyncGenerator[SqliteStore]:
        """Open the store of ``data_dir`` (which exists); leaving puts everything on disk.

        A disk with less than ``ballast_min_free`` bytes free gets no ballast; 0 bytes of ballast
        mean none. ``lock_timeout_s`` is how long a write waits for another process. Raises
        ``DicodeError`` (DATA_DIR, STORAGE_UNAVAILABLE, STORAGE_FULL).
        """
        reserve = Reserve(data_dir, clock, size=ballast_bytes, min_free=ballast_min_free)
        files = await asyncio.to_thread(_open, data_dir, reserve)
        answers = Answers(asyncio.get_running_loop())
        state = GroupWriter(
            "store-state",
            files.state.writer,
            answers,
            clock,
            reserve,
            where=files.state.where,
            lock_timeout_s=lock_timeout_s,
        )
        logs = GroupWriter(
            "store-logs",
            files.logs.writer,
            answers,
            clock,
            None,
            where=files.logs.where,
            lock_timeout_s=lock_timeout_s,
        )
        state_readers = ReaderPool(
            "store-read", files.state.readers, answers, where=files.state.where
        )
        log_readers = ReaderPool("log-read", files.logs.readers, answers, where=files.logs.where)
        async with AsyncExitStack() as stack:
            for owner in (state, state_readers, logs, log_readers):
                owner.start()
                stack.push_async_callback(owner.close)
            store = cls(files.instance_id, state, state_readers, logs, log_readers, reserve)
            stack.push_async_callback(store.close_logs)
            yield store

    def sealing(self, bodies: Bodies) -> SqliteStore:
        """Give this store, on the same connections, with inputs going through ``bodies``.

        Their key is among the secrets, which a store has to be open for.
        """
        other = copy.copy(self)
        other._bodies = bodies
        return other

    async def close_logs(self) -> None:
        """Put every line on disk and take no more; ``open`` calls it at its end."""
        await self._book.close()

    async def instance_id(self) -> str:
        """Give the id of this data dir."""
        return self._instance_id

    # ── Runs ──

    async def add_run(self, run: Run, payload: Payload) -> Run:
        """Commit a run with its payload; see ``Store``."""
        body = self._written(payload)
        return await self._state.run(lambda c: runs.add(c, run, body))

    async def start_run(
        self,
        run_id: str,
        *,
        now_ms: int,
        task_hash: str,
        revision: str | None,
        spent: DaySpent | None = None,
    ) -> Run:
        """Claim a queued run; see ``Store``."""

        def start(connection: Connection) -> Run:
            run = runs.start(connection, run_id, now_ms, task_hash, revision)
            budgets.add(connection, spent)
            return run

        return await self._state.run(start, essential=True)

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
        """End a run and add what follows from it in one transaction; see ``Store``."""
        follows = [
            (row, self._written(payload)) for row, payload in follow_ups if payload is not None
        ]
        alike = [row for row, payload in follow_ups if payload is None]

        def finish(connection: Connection) -> Run:
            ended = runs.finish(connection, run, outcome, follows, notice, self._written)
            budgets.add(connection, spent)
            for row in alike:
                runs.add_like(connection, row, run.id)
            if joins is not None:
                settle(join_rows.RowShelf(connection, self._written), joins)
            if not keep_input:
                pruning.drop_inputs(connection, [run.id])
            return ended

        return await self._state.run(finish, essential=True)

    # ── Questions ──

    async def suspend_run(
        self, run: Run, question: Question, *, cpu_ms: int | None = None, tokens: int | None = None
    ) -> Run:
        """Let a run wait for an answer; see ``Store``."""
        return await self._state.run(
            lambda c: questions.suspend(c, run, question, cpu_ms, tokens), essential=True
        )

    async def answer_question(self, run_id: str, n: int, answered: Answered) -> Run:
        """Keep an answer and queue its run again; see ``Store``."""
        return await self._state.run(
            lambda c: questions.answer(c, run_id, n, answered, self._bodies), essential=True
        )

    async def questions(self, run_id: str) -> Sequence[Question]:
        """Give all questions of a run."""
        return await self._state_readers.run(lambda c: questions.of_run(c, run_id, self._bodies))

    async def open_questions(self, run_ids: Sequence[str] | None = None) -> Sequence[Question]:
        """Give the questions that runs wait for, by deadline."""
        return await self._state_readers.run(
            lambda c: questions.open_ones(c, run_ids, self._bodies)
        )

    async def once_get(self, run_id: str, key: str) -> str | None:
        """Read what ``once_put`` kept for a run."""
        codec.check_key(key)
        return await self._state_readers.run(
            lambda c: questions.once_get(c, run_id, key, self._bodies)
        )

    async def once_put(self, run_id: str, key: str, value: str) -> str:
        """Keep a value for a run, unless there is one; see ``Store``."""
        codec.check_key(key)
        return await self._state.run(
            lambda c: questions.once_put(c, run_id, key, value, self._bodies)
        )

    async def get_hidden(self, run_id: str) -> str | None:
        """Read which values a run must not show."""
        return await self._state_readers.run(
            lambda c: questions.once_get(c, run_id, questions.HIDDEN, self._bodies)
        )

    async def put_hidden(self, run_id: str, values: str) -> None:
        """Keep which values a run must not show; see ``Store``."""
        await self._state.run(
            lambda c: questions.put_hidden(c, run_id, values, self._bodies), essential=True
        )

    async def get_run(self, run_id: str) -> Run | None:
        """Read a run, with its values."""
        return await self._state_readers.run(lambda c: runs.get(c, run_id))

    async def attempts(self, run_id: str) -> Sequence[Run]:
        """Give every attempt of the wish a run belongs to; see ``Store``."""
        return await self._state_readers.run(lambda c: join_rows.attempts(c, run_id))

    async def tree(self, root_run_id: str, limit: int) -> Sequence[Run]:
        """Give the first runs under a root; see ``Store``."""
        return await self._state_readers.run(lambda c: join_rows.tree(c, root_run_id, limit))

    async def get_payload(self, run_id: str) -> Payload | None:
        """Read what a run was started with."""
        return await self._state_readers.run(lambda c: runs.payload(c, run_id, self._bodies))

    def _written(self, payload: Payload) -> bytes | None:
        body = codec.payload_bytes(payload)
        return self._bodies.seal("payload", body) if body else body

    async def list_runs(self, query: RunQuery) -> Page[Run]:
        """List runs, newest first; see ``Store``."""
        return await self._state_readers.run(lambda c: listing.page(c, query))

    async def last_runs(self, task_ids: Sequence[str]) -> Mapping[str, Run]:
        """Give the newest run of each task that has one."""
        return await self._state_readers.run(lambda c: listing.newest(c, task_ids))

    async def count_runs(self, *, since_ms: int | None = None) -> Mapping[RunStatus, int]:
        """Count runs by status."""
        return await self._state_readers.run(lambda c: listing.counts(c, since_ms))

    async def unfinished_runs(self) -> Sequence[Run]:
        """Give every run that has not ended, oldest first."""
        return await self._state_readers.run(listing.unfinished)

    async def delete_runs(self, run_ids: Sequence[str]) -> int:
        """Delete runs that have ended with all they own; gives their number.

        Logs go first: after a crash in between the run is still there to be deleted again.
        """
        wanted = list(dict.fromkeys(run_ids))
        deleted = 0
        for start in range(0, len(wanted), _DELETED_AT_ONCE):
            part = wanted[start : start + _DELETED_AT_ONCE]
            deleted += await self._delete_part(part)
        return deleted

    async def _delete_part(self, run_ids: Sequence[str]) -> int:
        ended = await self._state_readers.run(lambda c: runs.ended_of(c, run_ids))
        self._book.forget(ended)

        def remove_logs(connection: Connection) -> None:
            chunks.remove(connection, ended)
            give_back(connection)

        def remove_runs(connection: Connection) -> int:
            number = runs.remove(connection, ended)
            give_back(connection)
            return number

        await self._logs.run(remove_logs)
        return await self._state.run(remove_runs, essential=True)

    async def matching_runs(self, query: RunQuery, *, at_most: int) -> int:
        """Count the runs that a query finds, but stop at ``at_most``."""
        return await self._state_readers.run(lambda c: listing.matching(c, query, at_most))

    async def return_values(
        self, run_ids: Sequence[str], *, at_most: int
    ) -> Mapping[str, str | None]:
        """Give the return values of runs; see ``Store``."""
        return await self._state_readers.run(lambda c: listing.return_values(c, run_ids, at_most))

    async def pin_run(self, run_id: str, pinned: bool) -> Run:
        """Keep a run whatever the retention says, or no longer."""
        return await self._state.run(lambda c: pruning.pin(c, run_id, pinned), essential=True)

    # ── History ──

    async def run_days(self, query: DayQuery) -> DayPage:
        """Give the sums of runs by task and day."""
        return await self._state_readers.run(lambda c: days.page(c, query))

    async def tasks_with_runs(self, *, after: str = "", limit: int = 100) -> Sequence[str]:
        """Give the ids of tasks that have runs."""
        return await self._state_readers.run(lambda c: pruning.tasks(c, after, limit))

    async def prunable_runs(self, query: PruneQuery) -> Page[str]:
        """Give ids of runs that may go; see ``Store``."""
        return await self._state_readers.run(lambda c: pruning.prunable(c, query))

    async def size_of_runs(self, run_ids: Sequence[str]) -> RunsSize:
        """Measure what runs take, logs included."""
        size = await self._state_readers.run(lambda c: pruning.size(c, run_ids))
        logs = await self._log_readers.run(lambda c: pruning.log_bytes(c, run_ids))
        return replace(size, bytes=size.bytes + logs)

    async def runs_with_input(
        self, task_id: str, *, ended_before_ms: int, limit: int = 200, cursor: str | None = None
    ) -> Page[str]:
        """Give ids of ended runs that still have their payload; see ``Store``."""
        return await self._state_readers.run(
            lambda c: pruning.with_input(c, task_id, ended_before_ms, limit, cursor)
        )

    async def drop_inputs(self, run_ids: Sequence[str]) -> int:
        """Forget what ended runs began with; see ``Store``."""
        return await self._state.run(lambda c: pruning.drop_inputs(c, run_ids), essential=True)

    async def drop_expired_keys(self, *, now_ms: int, limit: int = 500) -> int:
        """Forget idempotency keys that stand for nothing any more."""
        before = now_ms - codec.IDEMPOTENCY_MS
        return await self._state.run(lambda c: pruning.drop_keys(c, before, limit), essential=True)

    # ── Logs ──

    async def append_logs(self, run_id: str, lines: Sequence[LogLine]) -> None:
        """Take lines; see ``Store``."""
        await self._book.append(run_id, lines)

    async def flush_logs(self, run_id: str) -> None:
        """Return when the lines of a run are on disk, or dropped."""
        await self._book.flush(run_id)

    async def trim_logs(self, run_id: str, *, after: int, before: int) -> None:
        """Put one line in the place of those between two seqs; see ``Store``."""
        # Lines in memory include those of the last chunk on disk, which may yet be written again.
        held = self._book.held(run_id)
        end = min(before, held[0].seq) if held else before
        await self._logs.run(lambda c: chunks.trim(c, run_id, after, end), essential=True)

    async def read_logs(self, run_id: str, query: LogQuery) -> LogPage:
        """Read a run's log."""
        held = self._book.held(run_id)
        page = log_reader.from_memory(held, query)
        if page is not None:
            return page
        return await self._log_readers.run(lambda c: log_reader.read(c, run_id, query, held))

    def _write_lines(self, batches: Mapping[str, Batch]) -> asyncio.Future[None]:
        def work(connection: Connection) -> None:
            if not self._reserve.logs_allowed():
                raise storage_full("logs.db")
            for run_id, batch in batches.items():
                chunks.write(connection, run_id, batch.lines, batch.open_seq)

        return self._logs.submit(work)

    # ── What tasks keep ──

    async def kv_get(self, task_id: str, key: str) -> str | None:
        """Read a value."""
        codec.check_key(key)
        return await self._state_readers.run(lambda c: kv.get(c, task_id, key, self._bodies))

    async def kv_set(self, task_id: str, key: str, value: str, *, now_ms: int) -> None:
        """Write a value."""
        codec.check_key(key)
        await self._state.run(lambda c: kv.put(c, task_id, key, value, now_ms, self._bodies))

    async def kv_delete(self, task_id: str, key: str) -> bool:
        """Remove a value; tells whether there was one."""
        codec.check_key(key)
        return await self._state.run(lambda c: kv.remove(c, task_id, key), essential=True)

    async def kv_list(self, task_id: str, prefix: str = "") -> Sequence[str]:
        """List keys with a prefix, sorted."""
        codec.check_key(prefix)
        return await self._state_readers.run(lambda c: kv.keys(c, task_id, prefix))

    # ── Sources and approvals ──

    async def set_source_overrides(self, source: str, overrides: SourceOverrides) -> None:
        """Keep what was decided for a source; see ``Store``."""
        await self._state.run(lambda c: source_states.put(c, source, overrides), essential=True)

    async def source_overrides(self) -> Mapping[str, SourceOverrides]:
        """Give what was decided, by source."""
        return await self._state_readers.run(source_states.every)

    async def add_approval(self, approval: Approval) -> None:
        """Keep an approval."""
        await self._state.run(lambda c: approvals.put(c, approval), essential=True)

    async def clear_approvals(self, task_id: str) -> int:
        """Forget the approvals of a task; gives how many there were."""
        return await self._state.run(lambda c: approvals.remove(c, task_id), essential=True)

    async def approvals(self) -> Mapping[str, Sequence[Approval]]:
        """Give all approvals by task, oldest first."""
        return await self._state_readers.run(approvals.every)

    async def undelivered_notices(self) -> Mapping[str, NoticeState]:
        """Give what is known of tasks whose last notice did not get through."""
        return await self._state_readers.run(notices.undelivered)

    # ── Secrets and keys ──

    async def put_secrets(self, secrets: Sequence[SealedSecret]) -> None:
        """Keep sealed secrets, all or none."""
        for secret in secrets:
            codec.check_key(secret.name)
        await self._state.run(lambda c: secret_rows.put(c, secrets), essential=True)

    async def delete_secret(self, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        return await self._state.run(lambda c: secret_rows.remove(c, name), essential=True)

    async def secrets(self) -> Mapping[str, SealedSecret]:
        """Give all sealed secrets by name."""
        return await self._state_readers.run(secret_rows.every)

    async def reseal_bodies(self, place: tuple[Any, ...] | None) -> resealing.Step:
        """Seal the next bodies anew; only for a store that is ``sealing``."""
        bodies = cast("resealing.NamedBodies", self._bodies)
        return await self._state.run(lambda c: resealing.step(c, bodies, place), essential=True)

    async def put_key(self, key: BearerKey) -> None:
        """Keep a bearer key."""
        await self._state.run(lambda c: key_rows.put(c, key), essential=True)

    async def keys(self) -> Sequence[BearerKey]:
        """Give all bearer keys, oldest first."""
        return await self._state_readers.run(key_rows.every)

    # ── Pauses, schedules, audit ──

    async def set_pause(self, pause: Pause) -> None:
        """Pause a task."""
        await self._state.run(lambda c: pauses.put(c, pause), essential=True)

    async def clear_pause(self, task_id: str) -> bool:
        """End a pause; tells whether there was one."""
        return await self._state.run(lambda c: pauses.remove(c, task_id), essential=True)

    async def pauses(self) -> Mapping[str, Pause]:
        """Give all pauses by task."""
        return await self._state_readers.run(pauses.every)

    async def claim_signatures(self, keys: Sequence[str], *, now_ms: int, expires_ms: int) -> bool:
        """Take signatures of a webhook as used, unless one was; see ``Store``."""
        return await self._state.run(lambda c: signatures.claim(c, keys, now_ms, expires_ms))

    async def release_signatures(self, keys: Sequence[str]) -> None:
        """Forget signatures whose message started nothing."""
        await self._state.run(lambda c: signatures.release(c, keys), essential=True)

    async def note_tokens(self, run_id: str, total: int, spent: DaySpent | None) -> None:
        """Keep the tokens a running run used so far; see ``Store``."""
        await self._state.run(
            lambda c: budgets.note_tokens(c, run_id, total, spent), essential=True
        )

    async def spending(self, *, since_day: str) -> Sequence[DaySpent]:
        """Give what tasks spent on a day and later ones."""
        return await self._state_readers.run(lambda c: budgets.since(c, since_day))

    async def forget_spending(self, *, before_day: str) -> int:
        """Forget what was spent before a day; gives how many rows."""
        return await self._state.run(lambda c: budgets.forget(c, before_day), essential=True)

    async def put_accesses(self, texts: Mapping[str, str]) -> None:
        """Keep, by task, what its last runs used."""
        await self._state.run(lambda c: access_rows.put(c, texts))

    async def accesses(self, task_id: str) -> str | None:
        """Give what a task's last runs used."""
        return await self._state_readers.run(lambda c: access_rows.get(c, task_id))

    async def forget_accesses(self, *, keep: Collection[str]) -> int:
        """Forget what tasks used other than those to keep; gives how many they were."""
        return await self._state.run(lambda c: access_rows.forget(c, keep), essential=True)

    async def schedule_slots(self) -> Mapping[str, int]:
        """Give the last fired cron slot of each task."""
        return await self._state_readers.run(schedule.slots)

    async def set_schedule_slot(self, task_id: str, slot_ms: int) -> None:
        """Note a slot as dealt with, without a run."""
        await self._state.run(lambda c: schedule.put(c, task_id, slot_ms), essential=True)

    async def append_audit(self, entries: Sequence[AuditEntry], head: str) -> None:
        """Write audit entries and the head of their chain, all or none."""
        rows = [audit.row_of(entry) for entry in entries]
        await self._state.run(lambda c: audit.append(c, rows, head), essential=True)

    async def audit_head(self) -> str | None:
        """Give the head of the audit chain."""
        return await self._state_readers.run(audit.head)

    async def list_audit(
        self,
        *,
        limit: int = 100,
        before_id: int | None = None,
        after_id: int | None = None,
        query: AuditQuery | None = None,
    ) -> Page[AuditEntry]:
        """List audit entries, newest first, or oldest first after an id."""
        wanted = query or AuditQuery()
        return await self._state_readers.run(
            lambda c: audit.page(c, limit, before_id, after_id, wanted)
        )


def _open(data_dir: Path, reserve: Reserve) -> _Files:
    """Open both databases and take the ballast; on a full disk give the ballast up. Blocks."""
    try:
        return _open_files(data_dir, reserve)
    except DicodeError as error:
        if error.code is not Code.STORAGE_FULL or not reserve.release():
            raise
    return _open_files(data_dir, reserve)


def _open_files(data_dir: Path, reserve: Reserve) -> _Files:
    state = open_database(Database(data_dir / "state.db", "FULL"), STATE_SCHEMA, readers=2)
    try:
        logs = open_database(Database(data_dir / "logs.db", "NORMAL"), LOGS_SCHEMA, readers=1)
        try:
            instance_id = _instance_id(state)
            reserve.prepare()
            return _Files(state, logs, instance_id)
        except BaseException:
            logs.close()
            raise
    except BaseException:
        state.close()
        raise


def _instance_id(state: Opened) -> str:
    connection = state.writer
    known = meta.instance_id(connection)
    if known is not None:
        return known
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        made = meta.make_instance_id(connection, uuid.uuid4().hex)
        connection.exec_driver_sql("COMMIT")
    except Exception as error:
        raise translate(error, state.where) from error
    return made

"""A store in memory that passes the contract of the real ones (tests/contract)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from dicode_mcp.errors import DicodeError
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
from dicode_mcp.runs.model import (
    Outcome,
    Payload,
    Run,
    RunStatus,
    finished,
    move,
    started,
    suspended,
)
from dicode_mcp.runs.notices import NoticeChange, NoticeState
from dicode_mcp.runs.questions import Answered, Question
from dicode_mcp.runs.statistics import Durations, Tally, TaskDay, day_of, tally_of, together
from dicode_mcp.store import codec, log_pages
from dicode_mcp.store.faults import taken
from dicode_mcp.store.rows.questions import require_open, require_room
from dicode_mcp.store.rows.runs import not_found, stale
from dicode_mcp.testing import joins as families
from dicode_mcp.testing.joins import Arrivals, MemoryShelf


@dataclass(slots=True)
class _State:
    """Everything a transaction may change about runs, so that a failed one can be undone."""

    runs: dict[str, Run]
    payloads: dict[str, Payload]
    keys: dict[tuple[str, str], tuple[str, int]]
    slots: dict[str, int]
    days: dict[tuple[int, str], Tally]
    notices: dict[str, NoticeState]
    arrivals: Arrivals

    def copy(self) -> _State:
        return _State(
            dict(self.runs),
            dict(self.payloads),
            dict(self.keys),
            dict(self.slots),
            dict(self.days),
            dict(self.notices),
            dict(self.arrivals),
        )


class MemoryStore:
    """A ``Store`` for tests. Set ``failure`` and every write raises it until it is None again."""

    def __init__(self, instance_id: str = "memory") -> None:
        self.failure: DicodeError | None = None
        self._instance_id = instance_id
        self._state = _State({}, {}, {}, {}, {}, {}, {})
        self._logs: dict[str, list[LogLine]] = {}
        self._kv: dict[tuple[str, str], str] = {}
        self._questions: dict[str, list[Question]] = {}
        self._once: dict[str, dict[str, str]] = {}
        self._hidden: dict[str, str] = {}
        self._pauses: dict[str, Pause] = {}
        self._audit: list[AuditEntry] = []
        self._audit_head: str | None = None
        self._overrides: dict[str, SourceOverrides] = {}
        self._approvals: dict[tuple[str, str], Approval] = {}
        self._signatures: dict[str, int] = {}
        self._spent: dict[tuple[str, str], DaySpent] = {}
        self._accesses: dict[str, str] = {}
        self._secrets: dict[str, SealedSecret] = {}
        self._keys: dict[str, BearerKey] = {}

    async def instance_id(self) -> str:
        """Give the id given at making."""
        return self._instance_id

    # ── Runs ──

    async def add_run(self, run: Run, payload: Payload) -> Run:
        """Keep a run with its payload; see ``Store``."""
        self._may_write()
        return _add(self._state, run, payload)

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
        self._may_write()
        run = self._state.runs.get(run_id)
        if run is None:
            raise not_found(run_id)
        self._state.runs[run_id] = started(run, now_ms, task_hash, revision)
        self._spend(spent)
        return codec.listed(self._state.runs[run_id])

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
        """End a run and add its follow-ups, all or nothing; see ``Store``."""
        self._may_write()
        ended = finished(run, outcome)
        stored = self._state.runs.get(run.id)
        if stored is None:
            raise not_found(run.id)
        if (stored.status, stored.fence) != (run.status, run.fence):
            raise stale(run.id, stored.status)
        after = self._state.copy()
        after.runs[run.id] = finished(replace(stored, tokens=run.tokens), outcome)
        _count(after, after.runs[run.id])
        for follow_up, payload in follow_ups:
            _add(after, follow_up, after.payloads[run.id] if payload is None else payload)
        if notice is not None:
            settled = notice.settle(after.notices.get(notice.task_id, NoticeState(notice.task_id)))
            after.notices[notice.task_id] = settled.state
            if settled.follow_up is not None:
                _add(after, *settled.follow_up)
        if joins is not None:
            shelf = MemoryShelf(after.runs, after.arrivals, lambda r, p: _add(after, r, p))
            settle(shelf, joins)
        if not keep_input and not stored.pinned and after.payloads[run.id] != Payload():
            after.payloads[run.id] = Payload(dropped=True)
        self._state = after
        self._spend(spent)
        return ended

    # ── Questions ──

    async def suspend_run(
        self, run: Run, question: Question, *, cpu_ms: int | None = None, tokens: int | None = None
    ) -> Run:
        """Let a run wait for an answer; see ``Store``."""
        self._may_write()
        after = suspended(run, question.asked_at_ms, cpu_ms=cpu_ms, tokens=tokens)
        stored = self._state.runs.get(run.id)
        if stored is None:
            raise not_found(run.id)
        if (stored.status, stored.fence) != (run.status, run.fence):
            raise stale(run.id, stored.status)
        self._state.runs[run.id] = after
        self._questions.setdefault(run.id, []).append(question)
        return after

    async def answer_question(self, run_id: str, n: int, answered: Answered) -> Run:
        """Keep an answer and queue its run again; see ``Store``."""
        self._may_write()
        run = self._state.runs.get(run_id)
        if run is None:
            raise not_found(run_id)
        asked = self._questions.get(run_id, [])
        question = next((q for q in asked if q.n == n), None)
        require_open(run, n, question)
        assert question is not None
        asked[asked.index(question)] = replace(question, answered=answered)
        self._state.runs[run_id] = move(run, RunStatus.QUEUED)
        return self._state.runs[run_id]

    async def questions(self, run_id: str) -> Sequence[Question]:
        """Give all questions of a run."""
        return list(self._questions.get(run_id, ()))

    async def open_questions(self, run_ids: Sequence[str] | None = None) -> Sequence[Question]:
        """Give the questions that runs wait for, by deadline."""
        runs = self._state.runs
        found = [
            question
            for run_id, asked in self._questions.items()
            for question in asked
            if question.answered is None
            and (run_ids is None or run_id in run_ids)
            and run_id in runs
            and runs[run_id].status is RunStatus.WAITING
        ]
        return sorted(found, key=lambda q: (q.deadline_ms, q.run_id))

    async def once_get(self, run_id: str, key: str) -> str | None:
        """Read what ``once_put`` kept for a run."""
        codec.check_key(key)
        return self._once.get(run_id, {}).get(key)

    async def once_put(self, run_id: str, key: str, value: str) -> str:
        """Keep a value for a run, unless there is one; see ``Store``."""
        codec.check_key(key)
        self._may_write()
        if run_id not in self._state.runs:
            raise not_found(run_id)
        kept = self._once.setdefault(run_id, {})
        if key not in kept:
            require_room(run_id, len(kept))
        return kept.setdefault(key, value)

    async def get_hidden(self, run_id: str) -> str | None:
        """Read which values a run must not show."""
        return self._hidden.get(run_id)

    async def put_hidden(self, run_id: str, values: str) -> None:
        """Keep which values a run must not show; see ``Store``."""
        self._may_write()
        if run_id not in self._state.runs:
            raise not_found(run_id)
        self._hidden[run_id] = values

    async def get_run(self, run_id: str) -> Run | None:
        """Read a run, with its values."""
        return self._state.runs.get(run_id)

    async def attempts(self, run_id: str) -> Sequence[Run]:
        """Give every attempt of the wish a run belongs to; see ``Store``."""
        return families.attempts(self._state.runs, run_id)

    async def tree(self, root_run_id: str, limit: int) -> Sequence[Run]:
        """Give the first runs under a root; see ``Store``."""
        return families.tree(self._state.runs, root_run_id, limit)

    async def get_payload(self, run_id: str) -> Payload | None:
        """Read what a run was started with."""
        return self._state.payloads.get(run_id)

    async def list_runs(self, query: RunQuery) -> Page[Run]:
        """List runs, newest first; see ``Store``."""
        limit = codec.page_size(query.limit)
        place = None if query.cursor is None else codec.read_run_cursor(query.cursor)
        found = [
            run
            for run in self._newest_first()
            if _fits(run, query) and (place is None or (run.created_at_ms, run.id) < place)
        ]
        codec.check_offset(query.offset)
        found = found[query.offset :]
        items = tuple(codec.listed(run) for run in found[:limit])
        return Page(items, codec.run_cursor(items[-1]) if len(found) > limit else None)

    async def last_runs(self, task_ids: Sequence[str]) -> Mapping[str, Run]:
        """Give the newest run of each task that has one."""
        found: dict[str, Run] = {}
        for run in self._newest_first():
            if run.task_id in task_ids:
                found.setdefault(run.task_id, codec.listed(run))
        return found

    async def count_runs(self, *, since_ms: int | None = None) -> Mapping[RunStatus, int]:
        """Count runs by status."""
        counts: dict[RunStatus, int] = {}
        for run in self._state.runs.values():
            if since_ms is None or run.created_at_ms >= since_ms:
                counts[run.status] = counts.get(run.status, 0) + 1
        return counts

    async def unfinished_runs(self) -> Sequence[Run]:
        """Give every run that has not ended, oldest first."""
        return [codec.listed(r) for r in reversed(self._newest_first()) if not r.status.ended]

    async def delete_runs(self, run_ids: Sequence[str]) -> int:
        """Delete runs that have ended with all they own; gives their number."""
        self._may_write()
        state = self._state
        ended = {i for i in run_ids if i in state.runs and _may_go(state.runs[i])}
        for run_id in ended:
            del state.runs[run_id]
            del state.payloads[run_id]
            self._logs.pop(run_id, None)
            self._questions.pop(run_id, None)
            self._once.pop(run_id, None)
            self._hidden.pop(run_id, None)
        state.keys = {k: v for k, v in state.keys.items() if v[0] not in ended}
        return len(ended)

    async def matching_runs(self, query: RunQuery, *, at_most: int) -> int:
        """Count the runs that a query finds, but stop at ``at_most``."""
        return min(at_most, sum(_fits(run, query) for run in self._state.runs.values()))

    async def return_values(
        self, run_ids: Sequence[str], *, at_most: int
    ) -> Mapping[str, str | None]:
        """Give the return values of runs; see ``Store``."""
        found = [run for i in run_ids if (run := self._state.runs.get(i)) is not None]
        return {
            run.id: run.return_value if len(run.return_value.encode()) <= at_most else None
            for run in found
            if run.return_value is not None
        }

    async def pin_run(self, run_id: str, pinned: bool) -> Run:
        """Keep a run whatever the retention says, or no longer."""
        self._may_write()
        run = self._state.runs.get(run_id)
        if run is None:
            raise not_found(run_id)
        self._state.runs[run_id] = replace(run, pinned=pinned)
        return self._state.runs[run_id]

    # ── History ──

    async def run_days(self, query: DayQuery) -> DayPage:
        """Give the sums of runs by task and day."""
        found = [
            TaskDay(task_id, day, tally)
            for (day, task_id), tally in self._state.days.items()
            if (query.task_ids is None or task_id in query.task_ids)
            and (query.since_day is None or day >= query.since_day)
            and (query.until_day is None or day <= query.until_day)
        ]
        found.sort(key=lambda found: (-found.day, found.task_id))
        totals = together(found.tally for found in found)
        if len(found) > query.measured:
            totals = replace(totals, durations=Durations())
        return DayPage(tuple(found[: query.limit]), totals, len(found) > query.limit)

    async def tasks_with_runs(self, *, after: str = "", limit: int = 100) -> Sequence[str]:
        """Give the ids of tasks that have runs."""
        known = {run.task_id for run in self._state.runs.values()}
        return sorted(task_id for task_id in known if task_id > after)[:limit]

    async def prunable_runs(self, query: PruneQuery) -> Page[str]:
        """Give ids of runs that may go; see ``Store``."""
        mine = [run for run in self._newest_first() if run.task_id == query.task_id]
        beyond = set[str]() if query.keep is None else {run.id for run in mine[query.keep :]}
        late = query.ended_before_ms
        found = [
            run
            for run in reversed(mine)
            if run.id in beyond or (late is not None and (run.finished_at_ms or late) < late)
        ]
        page = _oldest_first(found, query.limit, query.cursor)
        needed = self._needed()
        free = [run for run in page.items if not {run.id, run.root_run_id} & needed]
        return Page(tuple(run.id for run in free), page.next_cursor)

    def _needed(self) -> set[str | None]:
        on = [run for run in self._state.runs.values() if not run.status.ended]
        named = [(r.id, r.root_run_id, r.parent_run_id, r.retry_of, r.replay_of) for r in on]
        return {run_id for group in named for run_id in group if run_id is not None}

    async def size_of_runs(self, run_ids: Sequence[str]) -> RunsSize:
        """Measure what runs take, logs included."""
        known = [run for i in run_ids if (run := self._state.runs.get(i)) is not None]
        bodies = [codec.payload_bytes(self._state.payloads[run.id]) or b"" for run in known]
        values = [codec.bodies_of(run.return_value, run.output, run.error) for run in known]
        total = sum(map(len, bodies)) + sum(len(b or b"") for v in values if v for b in v.values())
        total += sum(len(line.message) for run in known for line in self._logs.get(run.id, ()))
        times = [run.created_at_ms for run in known]
        return RunsSize(len(known), total, min(times, default=None), max(times, default=None))

    async def runs_with_input(
        self, task_id: str, *, ended_before_ms: int, limit: int = 200, cursor: str | None = None
    ) -> Page[str]:
        """Give ids of ended runs that still have their payload; see ``Store``."""
        found = [
            run
            for run in reversed(self._newest_first())
            if run.task_id == task_id and (run.finished_at_ms or ended_before_ms) < ended_before_ms
        ]
        page = _oldest_first(found, limit, cursor)
        kept = [run.id for run in page.items if _kept(self._state.payloads[run.id])]
        return Page(tuple(kept), page.next_cursor)

    async def drop_inputs(self, run_ids: Sequence[str]) -> int:
        """Forget what ended runs began with; see ``Store``."""
        self._may_write()
        known = [run for i in set(run_ids) if (run := self._state.runs.get(i)) is not None]
        mine = [r.id for r in known if _may_go(r) and _kept(self._state.payloads[r.id])]
        self._state.payloads.update({run_id: Payload(dropped=True) for run_id in mine})
        return len(mine)

    async def drop_expired_keys(self, *, now_ms: int, limit: int = 500) -> int:
        """Forget idempotency keys that stand for nothing any more."""
        self._may_write()
        keys = self._state.keys
        old = [k for k, (_, at) in keys.items() if now_ms - at >= codec.IDEMPOTENCY_MS][:limit]
        for key in old:
            del keys[key]
        return len(old)

    def _newest_first(self) -> list[Run]:
        runs = self._state.runs.values()
        return sorted(runs, key=lambda run: (run.created_at_ms, run.id), reverse=True)

    # ── Logs ──

    async def append_logs(self, run_id: str, lines: Sequence[LogLine]) -> None:
        """Take lines."""
        self._logs.setdefault(run_id, []).extend(lines)

    async def flush_logs(self, run_id: str) -> None:
        """Do nothing: lines are where they are kept."""

    async def trim_logs(self, run_id: str, *, after: int, before: int) -> None:
        """Put one line in the place of those between two seqs; see ``Store``."""
        lines = self._logs.get(run_id, [])
        gone = [line for line in lines if after < line.seq < before]
        if gone:
            last = gone[-1]
            mark = log_pages.trimmed(after + 1, last.seq, last.ts_ms)
            start = lines.index(gone[0])
            lines[start : start + len(gone)] = [mark]

    async def read_logs(self, run_id: str, query: LogQuery) -> LogPage:
        """Read a run's log."""
        return log_pages.page_of(self._logs.get(run_id, []), query)

    # ── What tasks keep ──

    async def kv_get(self, task_id: str, key: str) -> str | None:
        """Read a value."""
        codec.check_key(key)
        return self._kv.get((task_id, key))

    async def kv_set(self, task_id: str, key: str, value: str, *, now_ms: int) -> None:
        """Write a value."""
        codec.check_key(key)
        self._may_write()
        self._kv[task_id, key] = value

    async def kv_delete(self, task_id: str, key: str) -> bool:
        """Remove a value; tells whether there was one."""
        codec.check_key(key)
        self._may_write()
        return self._kv.pop((task_id, key), None) is not None

    async def kv_list(self, task_id: str, prefix: str = "") -> Sequence[str]:
        """List keys with a prefix, sorted."""
        codec.check_key(prefix)
        return sorted(k for task, k in self._kv if task == task_id and k.startswith(prefix))

    # ── Sources and approvals ──

    async def set_source_overrides(self, source: str, overrides: SourceOverrides) -> None:
        """Keep what was decided for a source; see ``Store``."""
        self._may_write()
        self._overrides.pop(source, None)
        if overrides:
            self._overrides[source] = overrides

    async def source_overrides(self) -> Mapping[str, SourceOverrides]:
        """Give what was decided, by source."""
        return dict(self._overrides)

    async def add_approval(self, approval: Approval) -> None:
        """Keep an approval."""
        self._may_write()
        self._approvals[approval.task_id, approval.digest] = approval

    async def clear_approvals(self, task_id: str) -> int:
        """Forget the approvals of a task; gives how many there were."""
        self._may_write()
        mine = [key for key in self._approvals if key[0] == task_id]
        for key in mine:
            del self._approvals[key]
        return len(mine)

    async def approvals(self) -> Mapping[str, Sequence[Approval]]:
        """Give all approvals by task, oldest first."""
        found: dict[str, list[Approval]] = {}
        for approval in sorted(self._approvals.values(), key=lambda a: (a.at_ms, a.digest)):
            found.setdefault(approval.task_id, []).append(approval)
        return found

    async def undelivered_notices(self) -> Mapping[str, NoticeState]:
        """Give what is known of tasks whose last notice did not get through."""
        return {i: n for i, n in sorted(self._state.notices.items()) if n.undelivered}

    # ── Pauses, schedules, audit ──

    async def put_secrets(self, secrets: Sequence[SealedSecret]) -> None:
        """Keep sealed secrets, all or none."""
        self._may_write()
        for secret in secrets:
            codec.check_key(secret.name)
        self._secrets |= {secret.name: secret for secret in secrets}

    async def delete_secret(self, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        self._may_write()
        return self._secrets.pop(name, None) is not None

    async def secrets(self) -> Mapping[str, SealedSecret]:
        """Give all sealed secrets by name."""
        return dict(sorted(self._secrets.items()))

    async def put_key(self, key: BearerKey) -> None:
        """Keep a bearer key."""
        self._may_write()
        self._keys[key.id] = key

    async def keys(self) -> Sequence[BearerKey]:
        """Give all bearer keys, oldest first."""
        return sorted(self._keys.values(), key=lambda key: (key.created_at_ms, key.id))

    async def set_pause(self, pause: Pause) -> None:
        """Pause a task."""
        self._may_write()
        self._pauses[pause.task_id] = pause

    async def clear_pause(self, task_id: str) -> bool:
        """End a pause; tells whether there was one."""
        self._may_write()
        return self._pauses.pop(task_id, None) is not None

    async def pauses(self) -> Mapping[str, Pause]:
        """Give all pauses by task."""
        return dict(self._pauses)

    async def claim_signatures(self, keys: Sequence[str], *, now_ms: int, expires_ms: int) -> bool:
        """Take signatures of a webhook as used, unless one was; see ``Store``."""
        self._may_write()
        self._signatures = {k: v for k, v in self._signatures.items() if v >= now_ms}
        if any(key in self._signatures for key in keys):
            return False
        self._signatures.update(dict.fromkeys(keys, expires_ms))
        return True

    async def release_signatures(self, keys: Sequence[str]) -> None:
        """Forget signatures whose message started nothing."""
        self._may_write()
        for key in keys:
            self._signatures.pop(key, None)

    async def note_tokens(self, run_id: str, total: int, spent: DaySpent | None) -> None:
        """Keep the tokens a running run used so far; see ``Store``."""
        self._may_write()
        if run_id in self._state.runs:
            self._state.runs[run_id] = replace(self._state.runs[run_id], tokens=total)
        self._spend(spent)

    async def spending(self, *, since_day: str) -> Sequence[DaySpent]:
        """Give what tasks spent on a day and later ones."""
        return [spent for (_, day), spent in self._spent.items() if day >= since_day]

    async def forget_spending(self, *, before_day: str) -> int:
        """Forget what was spent before a day; gives how many rows."""
        self._may_write()
        old = [key for key in self._spent if key[1] < before_day]
        for key in old:
            del self._spent[key]
        return len(old)

    def _spend(self, spent: DaySpent | None) -> None:
        if spent is not None:
            key = (spent.task_id, spent.day)
            self._spent[key] = self._spent.get(key, DaySpent(*key)).plus(spent)

    async def put_accesses(self, texts: Mapping[str, str]) -> None:
        """Keep, by task, what its last runs used."""
        self._may_write()
        self._accesses.update(texts)

    async def accesses(self, task_id: str) -> str | None:
        """Give what a task's last runs used."""
        return self._accesses.get(task_id)

    async def forget_accesses(self, *, keep: Collection[str]) -> int:
        """Forget what tasks used other than those to keep; gives how many they were."""
        self._may_write()
        gone = [task for task in self._accesses if task not in keep]
        for task in gone:
            del self._accesses[task]
        return len(gone)

    async def schedule_slots(self) -> Mapping[str, int]:
        """Give the last fired cron slot of each task."""
        return dict(self._state.slots)

    async def set_schedule_slot(self, task_id: str, slot_ms: int) -> None:
        """Note a slot as dealt with, without a run."""
        self._may_write()
        self._state.slots[task_id] = slot_ms

    async def append_audit(self, entries: Sequence[AuditEntry], head: str) -> None:
        """Write audit entries and the head of their chain."""
        self._may_write()
        details = [codec.from_json(codec.to_json(dict(entry.detail))) for entry in entries]
        for entry, detail in zip(entries, details, strict=True):
            self._audit.append(replace(entry, id=len(self._audit) + 1, detail=detail))
        self._audit_head = head

    async def audit_head(self) -> str | None:
        """Give the head of the audit chain."""
        return self._audit_head

    async def list_audit(
        self,
        *,
        limit: int = 100,
        before_id: int | None = None,
        after_id: int | None = None,
        query: AuditQuery | None = None,
    ) -> Page[AuditEntry]:
        """List audit entries, newest first, or oldest first after an id."""
        size = codec.page_size(limit)
        wanted = query or AuditQuery()
        found = [e for e in self._audit if _is_asked_for(e, wanted)]
        found = [e for e in found if before_id is None or e.id < before_id]
        found = [e for e in found if e.id > (after_id or 0)]
        if after_id is None:
            found.reverse()
        items = tuple(found[:size])
        return Page(items, str(items[-1].id) if len(found) > size else None)

    def _may_write(self) -> None:
        if self.failure is not None:
            raise self.failure


def _is_asked_for(entry: AuditEntry, query: AuditQuery) -> bool:
    return (
        _begins(entry.target, query.target)
        and query.action in (None, entry.action)
        and _begins(entry.actor, query.actor)
        and (query.since_ms is None or entry.at_ms >= query.since_ms)
    )


def _begins(text: str, wanted: str | None) -> bool:
    if wanted is not None and wanted.endswith("*"):
        return text.startswith(wanted[:-1])
    return wanted in (None, text)


def _add(state: _State, run: Run, payload: Payload) -> Run:
    # Through JSON and back, so that a test meets what a database would give.
    kept = codec.payload_of(codec.payload_bytes(payload))
    earlier = _earlier(state, run)
    if earlier is not None:
        return earlier
    if run.id in state.runs:
        raise taken()
    state.runs[run.id] = run
    state.payloads[run.id] = kept
    if run.idempotency_key is not None:
        state.keys[run.task_id, run.idempotency_key] = (run.id, run.created_at_ms)
    if run.slot_ms is not None:
        state.slots[run.task_id] = max(run.slot_ms, state.slots.get(run.task_id, run.slot_ms))
    _count(state, run)
    return run


def _count(state: _State, run: Run) -> None:
    if run.status.ended and run.finished_at_ms is not None:
        key = (day_of(run.finished_at_ms), run.task_id)
        state.days[key] = state.days.get(key, Tally()).plus(tally_of(run))


def _may_go(run: Run) -> bool:
    return run.status.ended and not run.pinned


def _kept(payload: Payload) -> bool:
    return payload != Payload() and not payload.dropped


def _oldest_first(runs: Sequence[Run], limit: int, cursor: str | None) -> Page[Run]:
    """Give a page of runs that may go, of runs that are sorted."""
    place = ((-(2**62)), "") if cursor is None else codec.read_run_cursor(cursor)
    found = [r for r in runs if _may_go(r) and (r.created_at_ms, r.id) > place]
    page = tuple(found[:limit])
    return Page(page, codec.run_cursor(page[-1]) if len(page) == limit else None)


def _earlier(state: _State, run: Run) -> Run | None:
    if run.idempotency_key is not None:
        known = state.keys.get((run.task_id, run.idempotency_key))
        if known is not None and run.created_at_ms - known[1] < codec.IDEMPOTENCY_MS:
            return state.runs[known[0]]
    if run.slot_ms is not None:
        slot = (run.task_id, run.slot_ms)
        return next((r for r in state.runs.values() if (r.task_id, r.slot_ms) == slot), None)
    return None


def _fits(run: Run, query: RunQuery) -> bool:
    return (
        query.task_id in (None, run.task_id)
        and (query.task_ids is None or run.task_id in query.task_ids)
        and (query.statuses is None or run.status in query.statuses)
        and (query.since_ms is None or run.created_at_ms >= query.since_ms)
        and query.root_run_id in (None, run.root_run_id)
        and query.parent_run_id in (None, run.parent_run_id)
    )

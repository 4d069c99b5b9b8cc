"""A store in memory that passes the contract of the real ones (tests/contract)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import (
    Approval,
    AuditEntry,
    LogPage,
    LogQuery,
    Page,
    Pause,
    RunQuery,
    SourceOverrides,
)
from dicode_mcp.runs.logs import LogLine
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, finished, move
from dicode_mcp.store import codec, log_pages
from dicode_mcp.store.faults import taken
from dicode_mcp.store.rows.runs import not_found, stale


@dataclass(slots=True)
class _State:
    """Everything a transaction may change about runs, so that a failed one can be undone."""

    runs: dict[str, Run]
    payloads: dict[str, Payload]
    keys: dict[tuple[str, str], tuple[str, int]]
    slots: dict[str, int]

    def copy(self) -> _State:
        return _State(dict(self.runs), dict(self.payloads), dict(self.keys), dict(self.slots))


class MemoryStore:
    """A ``Store`` for tests. Set ``failure`` and every write raises it until it is None again."""

    def __init__(self, instance_id: str = "memory") -> None:
        self.failure: DicodeError | None = None
        self._instance_id = instance_id
        self._state = _State({}, {}, {}, {})
        self._logs: dict[str, list[LogLine]] = {}
        self._kv: dict[tuple[str, str], str] = {}
        self._pauses: dict[str, Pause] = {}
        self._audit: list[AuditEntry] = []
        self._overrides: dict[str, SourceOverrides] = {}
        self._approvals: dict[tuple[str, str], Approval] = {}

    async def instance_id(self) -> str:
        """Give the id given at making."""
        return self._instance_id

    # ── Runs ──

    async def add_run(self, run: Run, payload: Payload) -> Run:
        """Keep a run with its payload; see ``Store``."""
        self._may_write()
        return _add(self._state, run, payload)

    async def start_run(
        self, run_id: str, *, now_ms: int, task_hash: str, revision: str | None
    ) -> Run:
        """Claim a queued run; see ``Store``."""
        self._may_write()
        run = self._state.runs.get(run_id)
        if run is None:
            raise not_found(run_id)
        self._state.runs[run_id] = move(
            run,
            RunStatus.RUNNING,
            fence=run.fence + 1,
            started_at_ms=now_ms,
            task_hash=task_hash,
            revision=revision,
        )
        return codec.listed(self._state.runs[run_id])

    async def finish_run(
        self, run: Run, outcome: Outcome, follow_ups: Sequence[tuple[Run, Payload]] = ()
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
        after.runs[run.id] = finished(stored, outcome)
        for follow_up, payload in follow_ups:
            _add(after, follow_up, payload)
        self._state = after
        return ended

    async def get_run(self, run_id: str) -> Run | None:
        """Read a run, with its values."""
        return self._state.runs.get(run_id)

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
        ended = {i for i in run_ids if i in state.runs and state.runs[i].status.ended}
        for run_id in ended:
            del state.runs[run_id]
            del state.payloads[run_id]
            self._logs.pop(run_id, None)
        state.keys = {k: v for k, v in state.keys.items() if v[0] not in ended}
        return len(ended)

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

    # ── Pauses, schedules, audit ──

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

    async def schedule_slots(self) -> Mapping[str, int]:
        """Give the last fired cron slot of each task."""
        return dict(self._state.slots)

    async def set_schedule_slot(self, task_id: str, slot_ms: int) -> None:
        """Note a slot as dealt with, without a run."""
        self._may_write()
        self._state.slots[task_id] = slot_ms

    async def add_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry."""
        self._may_write()
        detail = codec.from_json(codec.to_json(dict(entry.detail)))
        self._audit.append(replace(entry, id=len(self._audit) + 1, detail=detail))

    async def list_audit(
        self, *, limit: int = 100, before_id: int | None = None
    ) -> Page[AuditEntry]:
        """List audit entries, newest first."""
        size = codec.page_size(limit)
        found = [e for e in reversed(self._audit) if before_id is None or e.id < before_id]
        items = tuple(found[:size])
        return Page(items, str(items[-1].id) if len(found) > size else None)

    def _may_write(self) -> None:
        if self.failure is not None:
            raise self.failure


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
    return run


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
        and (query.statuses is None or run.status in query.statuses)
        and (query.since_ms is None or run.created_at_ms >= query.since_ms)
        and query.root_run_id in (None, run.root_run_id)
        and query.parent_run_id in (None, run.parent_run_id)
    )

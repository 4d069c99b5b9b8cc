"""Use cases on what is past: statistics, pins, and letting go of old runs."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import DayQuery, RunsSize, Store
from dicode_mcp.registry import Registry
from dicode_mcp.retention import Retention, brisk
from dicode_mcp.runs.statistics import DAY_MS, Tally, TaskDay, day_of
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.visible import visible_tasks
from dicode_mcp.spec.quantities import parse_duration

DEFAULT_DAYS = 7
PRUNE_S = 20.0
"""How long one call may go on; what is left the next call does."""
_SHOWN_TASKS = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HistoryService:
    """What callers may do with the past."""

    def __init__(
        self,
        *,
        store: Store,
        registry: Registry,
        retention: Retention,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._store = store
        self._registry = registry
        self._retention = retention
        self._audit = audit
        self._clock = clock

    async def stats(
        self,
        principal: Principal,
        *,
        task: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int = 50,
    ) -> dict[str, Any]:
        """Sum up runs by task and UTC day: ``{since, until, stats[], totals, more?}``.

        The last seven days unless told otherwise. ``totals`` adds up all, not only what is shown.
        """
        principal.require("read")
        until = day_of(self._clock.now_ms() if until_ms is None else until_ms)
        since = until - DEFAULT_DAYS + 1 if since_ms is None else day_of(since_ms)
        if since > until:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                "since is later than until",
                hint="leave until out for today",
            )
        query = DayQuery(await self._tasks(principal, task), since, until, limit)
        page = await self._store.run_days(query)
        if task is not None and not page.days and not await self._has_runs(task):
            raise self._registry.unknown_task(task, principal.sees)
        answer: dict[str, Any] = {
            "since": _date(since),
            "until": _date(until),
            "stats": [_day_view(day) for day in page.days],
            "totals": _tally_view(page.totals),
        }
        if page.more:
            answer["more"] = f"only the newest {limit} rows: name a task, a later since or a limit"
        return answer

    async def _tasks(self, principal: Principal, task: str | None) -> tuple[str, ...] | None:
        if task is not None:
            return (self._named(principal, task),)
        return visible_tasks(self._registry, principal)

    def _named(self, principal: Principal, task: str) -> str:
        """Give the full id of a task that is there, or one that may have been."""
        entry = self._registry.resolve(task)
        task_id = entry.id if entry else task
        if not principal.sees(task_id):
            raise self._registry.unknown_task(task, principal.sees)
        return task_id

    async def _has_runs(self, task: str) -> bool:
        entry = self._registry.resolve(task)
        if entry is not None:
            return True
        return bool((await self._store.run_days(DayQuery((task,), limit=1))).days)

    async def pin(self, principal: Principal, run_id: str, pinned: bool) -> dict[str, Any]:
        """Keep a run whatever the retention says, or no longer: ``{run_id, task, …, pinned}``."""
        async with self._audit.action(principal, "pin_run", run_id, pinned=pinned):
            run = await self._store.get_run(run_id)
            if run is None or not principal.sees(run.task_id):
                raise DicodeError(
                    Code.RUN_NOT_FOUND,
                    f"run '{run_id[:64]}' not found",
                    hint="call get_runs to list runs",
                )
            principal.require("run", run.task_id)
            run = await self._store.pin_run(run_id, pinned)
        return {
            "run_id": run.id,
            "task": run.task_id,
            "status": run.status.value,
            "pinned": run.pinned,
        }

    async def prune(
        self,
        principal: Principal,
        *,
        dry_run: bool = False,
        task: str | None = None,
        older_than: str | None = None,
    ) -> dict[str, Any]:
        """Let go of old runs, or say which ones: ``{dry_run, runs, bytes, tasks[], done}``.

        By the rules of retention, or those that ended longer ago than ``older_than``. A call lasts
        at most some twenty seconds; ``done`` false: call again.
        """
        detail = {"dry_run": dry_run, "older_than": older_than or ""}
        found = _Found()
        async with self._audit.action(principal, "prune", task or "*", **detail):
            principal.require("admin")
            task_id = None if task is None else await self._prunable(principal, task)
            ends = self._clock.monotonic() + PRUNE_S
            steps = self._retention.old_runs(
                brisk(),
                task_id=task_id,
                older_than_s=None if older_than is None else _seconds(older_than),
                only=principal.sees,
                dry_run=dry_run,
                measure=True,
            )
            async with aclosing(steps) as going:
                async for step in going:
                    found.add(step.task_id, step.size)
                    if self._clock.monotonic() > ends:
                        found.done = False
                        break
        return found.view(dry_run)

    async def _prunable(self, principal: Principal, task: str) -> str:
        task_id = self._named(principal, task)
        known = await self._store.last_runs([task_id])
        if task_id not in known and self._registry.get(task_id) is None:
            raise self._registry.unknown_task(task, principal.sees)
        return task_id


class _Found:
    """What was let go of, by task."""

    def __init__(self) -> None:
        self.done = True
        self._tasks: dict[str, RunsSize] = {}

    def add(self, task_id: str, size: RunsSize) -> None:
        self._tasks[task_id] = _sum(self._tasks.get(task_id, RunsSize()), size)

    def view(self, dry_run: bool) -> dict[str, Any]:
        found = [(task_id, size) for task_id, size in self._tasks.items() if size.runs]
        most = sorted(found, key=lambda one: (-one[1].runs, one[0]))
        answer: dict[str, Any] = {
            "dry_run": dry_run,
            "runs": sum(size.runs for size in self._tasks.values()),
            "bytes": sum(size.bytes for size in self._tasks.values()),
            "tasks": [_size_view(task_id, size) for task_id, size in most[:_SHOWN_TASKS]],
            "done": self.done,
        }
        if len(most) > _SHOWN_TASKS:
            answer["more_tasks"] = len(most) - _SHOWN_TASKS
        if not self.done:
            answer["next"] = (
                "there is more than was counted in time: name a task"
                if dry_run
                else "call prune again: it goes on where this call ended"
            )
        return answer


def _sum(one: RunsSize, other: RunsSize) -> RunsSize:
    oldest = [ms for ms in (one.oldest_ms, other.oldest_ms) if ms is not None]
    newest = [ms for ms in (one.newest_ms, other.newest_ms) if ms is not None]
    return RunsSize(
        one.runs + other.runs,
        one.bytes + other.bytes,
        min(oldest, default=None),
        max(newest, default=None),
    )


def _size_view(task_id: str, size: RunsSize) -> dict[str, Any]:
    view: dict[str, Any] = {"task": task_id, "runs": size.runs, "bytes": size.bytes}
    if size.oldest_ms is not None and size.newest_ms is not None:
        view |= {"oldest": iso(size.oldest_ms), "newest": iso(size.newest_ms)}
    return view


def _day_view(day: TaskDay) -> dict[str, Any]:
    return {"task": day.task_id, "day": _date(day.day), **_tally_view(day.tally)}


def _tally_view(tally: Tally) -> dict[str, Any]:
    """Show sums; a measure that nothing was measured for is absent."""
    view: dict[str, Any] = {
        "runs": tally.runs,
        "failures": tally.failures,
        "by_status": {s.value: n for s, n in sorted(tally.by_status.items()) if n},
    }
    for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95)):
        value = tally.durations.quantile(share)
        if value is not None:
            view[name] = value
    for name in ("duration_ms", "cpu_ms", "tokens"):
        if getattr(tally, name):
            view[name] = getattr(tally, name)
    return view


def _date(day: int) -> str:
    return (_EPOCH + timedelta(milliseconds=day * DAY_MS)).date().isoformat()


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise DicodeError(
            Code.INVALID_ARGUMENT, f"older_than {error}", hint='for example "7d" or "12h"'
        ) from None

"""The use case of looking at the server itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dicode_mcp.clock import Clock, iso
from dicode_mcp.events import EventBus, RunChanged, TasksChanged
from dicode_mcp.protocols import Facility, Health, RunQuery, Store
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.runs.notices import NoticeState
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.views import is_paused, state_of
from dicode_mcp.service.visible import visible_sources, visible_tasks

_MINUTE_MS = 60 * 1000
_DAY_MS = 24 * 60 * _MINUTE_MS
_COUNTED = 10_000
_STATES = ("ready", "broken", "pending_approval", "unavailable", "conflict")


class Slots(Protocol):
    """What the status shows of the dispatcher."""

    @property
    def slots(self) -> int:
        """How many runs may be on at once."""
        ...

    @property
    def running(self) -> int:
        """How many slots are taken."""
        ...

    @property
    def waiting(self) -> int:
        """How many runs wait."""
        ...


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What does not change while the server runs."""

    version: str
    pid: int
    started_at_ms: int
    data_dir: str
    config_file: str | None
    url: Callable[[], str | None]
    sandbox: Health
    facilities: tuple[Facility, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences on accepted settings without effect in this build."""


class StatusService:
    """What the server says of itself."""

    def __init__(
        self,
        *,
        facts: ServerFacts,
        registry: Registry,
        store: Store,
        slots: Slots,
        runtimes: Callable[[], Mapping[str, Health]],
        bus: EventBus,
        clock: Clock,
        notifier: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._facts = facts
        self._registry = registry
        self._store = store
        self._slots = slots
        self._runtimes = runtimes
        self._bus = bus
        self._clock = clock
        self._counted: tuple[tuple[int, int], Mapping[RunStatus, int]] | None = None
        self._notifier = notifier
        self._asked: tuple[int, int] | None = None
        self._notices: tuple[int, Mapping[str, NoticeState]] | None = None
        self._tasks: tuple[int, dict[str, int]] | None = None

    async def get(self, principal: Principal) -> dict[str, Any]:
        """Show version, load, tasks by state, runs of the last day, and what is enforced.

        Whoever sees some tasks is told of these, and of nothing that others do or that the machine
        holds.
        """
        principal.require("read")
        seen = visible_tasks(self._registry, principal)
        if seen is not None:
            return await self._part(principal, seen)
        facts, now = self._facts, self._clock.now_ms()
        counts = await self._counts(now)
        status: dict[str, Any] = {
            "version": facts.version,
            "pid": facts.pid,
            "started_at": iso(facts.started_at_ms),
            "uptime_seconds": max(0, (now - facts.started_at_ms) // 1000),
            "data_dir": facts.data_dir,
            "tasks": self._task_counts(),
            "sources": len(self._registry.source_states()),
            "slots": {
                "total": self._slots.slots,
                "running": self._slots.running,
                "waiting": self._slots.waiting,
            },
            "asking": await self._asking(),
            "runs_last_24h": {status.value: counts.get(status, 0) for status in RunStatus},
            "runtimes": self._runtime_views(),
            "sandbox": {
                "enforced": facts.sandbox.ok,
                "message": facts.sandbox.message,
                "facilities": [_facility_view(each) for each in facts.facilities],
            },
        }
        if (told := await self._notifications()) is not None:
            status["notifications"] = told
        if facts.config_file:
            status["config_file"] = facts.config_file
        if url := facts.url():
            status["url"] = url
        if facts.notes:
            status["notes"] = list(facts.notes)
        return status

    async def _part(self, principal: Principal, seen: tuple[str, ...]) -> dict[str, Any]:
        facts, now = self._facts, self._clock.now_ms()
        everything = (*self._registry.entries(), *self._registry.contested())
        sources = visible_sources(self._registry, principal) or frozenset()
        return {
            "version": facts.version,
            "pid": facts.pid,
            "started_at": iso(facts.started_at_ms),
            "uptime_seconds": max(0, (now - facts.started_at_ms) // 1000),
            "tasks": _by_state([entry for entry in everything if principal.sees(entry.id)]),
            "sources": len(sources),
            "runs_last_24h": {
                status.value: await self._store.matching_runs(
                    RunQuery(task_ids=seen, statuses=frozenset({status}), since_ms=now - _DAY_MS),
                    at_most=_COUNTED,
                )
                for status in RunStatus
            },
            "runtimes": self._runtime_views(),
            "sandbox": {"enforced": facts.sandbox.ok, "message": facts.sandbox.message},
        }

    def _runtime_views(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "available": health.ok, **_message(health)}
            for name, health in sorted(self._runtimes().items())
        ]

    async def _counts(self, now: int) -> Mapping[RunStatus, int]:
        """Count the last day's runs; again only when something happened or a minute went by."""
        moment = (self._bus.published[RunChanged], now // _MINUTE_MS)
        if self._counted is None or self._counted[0] != moment:
            self._counted = (moment, await self._store.count_runs(since_ms=now - _DAY_MS))
        return self._counted[1]

    async def _asking(self) -> int:
        """Count the runs that wait for an answer, of any age; again only when a run moved."""
        moment = self._bus.published[RunChanged]
        if self._asked is None or self._asked[0] != moment:
            self._asked = (moment, len(await self._store.open_questions()))
        return self._asked[1]

    async def _notifications(self) -> dict[str, Any] | None:
        """Show who tells people of runs, and how many tasks they cannot be told of now."""
        task = self._notifier()
        if task is None:
            return None
        moment = self._bus.published[RunChanged]
        if self._notices is None or self._notices[0] != moment:
            self._notices = (moment, await self._store.undelivered_notices())
        states = self._notices[1].values()
        found: dict[str, Any] = {"task": task, "failing": len(states)}
        newest = max(states, key=lambda state: state.delivery_ms or 0, default=None)
        if newest is not None:
            found["last_error"] = newest.delivery_error or ""
            found["last_run_id"] = newest.delivery_run_id or ""
        return found

    def _task_counts(self) -> dict[str, int]:
        """Count the tasks by state; again only when one of them changed."""
        moment = self._bus.published[TasksChanged]
        if self._tasks is None or self._tasks[0] != moment:
            entries = (*self._registry.entries(), *self._registry.contested())
            self._tasks = (moment, _by_state(entries))
        return dict(self._tasks[1])


def _by_state(entries: Sequence[Entry]) -> dict[str, int]:
    states = Counter(state_of(entry) for entry in entries)
    return {
        "total": len(entries),
        **{name: states[name] for name in _STATES},
        "paused": sum(1 for entry in entries if is_paused(entry)),
    }


def _facility_view(facility: Facility) -> dict[str, Any]:
    view = {"name": facility.name, "enforced": facility.ok, "message": facility.message}
    return view if facility.ok else {**view, "remedy": facility.remedy}


def _message(health: Health) -> dict[str, str]:
    return {"message": health.message} if health.message else {}

"""Starts runs by the clock: one loop for all cron tasks, whatever their number.

It submits requests and knows nothing of how they run. What it needs to remember across a restart
is the last slot of each task, which the store keeps; a slot and its run are written together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar
from zoneinfo import ZoneInfo

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.errors import STORAGE_TROUBLE, DicodeError
from dicode_mcp.events import EventBus, RunChanged, Subscription, TasksChanged
from dicode_mcp.protocols import Store
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.model import Run, RunStatus
from dicode_mcp.triggers.catchup import GRACE_MS, MOST_CAUGHT_UP, Fire
from dicode_mcp.triggers.missed import Miss, MissedRuns, Why
from dicode_mcp.triggers.starter import Started, Starter
from dicode_mcp.triggers.timetable import Plan, Timetable, plan_of

log = logging.getLogger("dicode.cron")

T = TypeVar("T")

LONGEST_NAP_S = 30.0
"""How soon a jump of the wall clock is noticed at the latest."""
TURN_BACK_MS = 60_000
"""A clock that was put back by less is waited out."""
JUMP_MS = 5_000
"""By how much the wall clock must run ahead of the monotonic one to be called a jump."""
_AT_ONCE = 64
"""Writes in flight: enough for the store to commit them in groups."""
_PAUSES_MS = (1_000, 2_000, 5_000, 10_000, 30_000)
_BREATH = 200
"""Tasks planned between two chances for the rest of the server."""
_EVENTS_HELD = 65_536


class CronTrigger:
    """Submits a run for each slot of each cron task in force while ``run`` runs.

    ``zone`` is for tasks that name none. Start it when the sources have been looked at and the
    queue has recovered. What a task misses while the server is off is caught up by its own rule;
    what it misses while it is paused, broken or removed is not.
    """

    def __init__(
        self,
        queue: Queue,
        registry: Registry,
        store: Store,
        bus: EventBus,
        clock: Clock,
        zone: ZoneInfo,
    ) -> None:
        self._registry = registry
        self._store = store
        self._bus = bus
        self._clock = clock
        self._zone = zone
        self._starter = Starter(queue)
        self._missed = MissedRuns(registry, clock)
        self._table = Timetable()
        self._stored: dict[str, int] = {}
        """The store's slots of tasks that this server has not met yet."""
        self._unsaved: dict[str, int] = {}
        self._backlog: dict[str, deque[Fire]] = {}
        """Slots decided on that have no row yet; the queue of a task that is always in order."""
        self._upto: dict[str, int] = {}
        """With a backlog: the newest slot it covers."""
        self._failures: dict[str, int] = {}
        self._changed: set[str] = set()
        self._free: set[str] = set()
        """Tasks with a backlog whose run before it has ended."""
        self._resumed: set[str] = set()
        """Tasks whose slots since the server's last life have not been looked at yet."""
        self._wake = asyncio.Event()
        self._seen_ms = 0
        self._ahead_ms: float | None = None
        """By how much the wall clock is ahead of the monotonic one."""
        self._jumped = False

    def next_run_ms(self, task_id: str) -> int | None:
        """Give when cron starts a task next (epoch ms), jitter included; None when it does not."""
        return self._table.due_ms(task_id)

    async def run(self) -> None:
        """Keep time until cancelled."""
        with self._bus.subscribe(_EVENTS_HELD, (TasksChanged, RunChanged)) as events:
            self._stored = dict(await self._patiently(self._store.schedule_slots))
            self._seen_ms = self._clock.now_ms()
            self._look_at_all()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(events))
                group.create_task(self._missed.run())
                while True:
                    await self._turn()

    async def _listen(self, events: Subscription) -> None:
        lost = 0
        async for event in events:
            if isinstance(event, TasksChanged):
                self._changed.update(event.task_ids)
                self._wake.set()
            elif isinstance(event, RunChanged):
                self._run_moved(event)
            if events.lost != lost:
                lost = events.lost
                self._look_at_all()

    def _look_at_all(self) -> None:
        self._changed.update(entry.id for entry in self._registry.entries())
        self._changed.update(self._table.task_ids())
        self._wake.set()

    def _run_moved(self, event: RunChanged) -> None:
        if event.status == RunStatus.QUEUED:
            return
        began = self._starter.began(event.task_id, event.run_id)
        # One that was submitted late has been told of already.
        if began is not None and self._clock.now_ms() - began.created_at_ms > GRACE_MS:
            self._note_late(began, Why.QUEUE)
        if not RunStatus(event.status).ended:
            return
        if self._starter.ended(event.task_id, event.run_id) and event.task_id in self._backlog:
            self._free.add(event.task_id)
            self._wake.set()

    # One turn

    async def _turn(self) -> None:
        self._wake.clear()
        self._follow_the_clock()
        await self._take_up()
        await self._save()
        free, self._free = self._free, set()
        due = self._table.pop_due(self._clock.now_ms())
        await _each(list(dict.fromkeys([*due, *free])), self._fire)
        await self._clock.wait(self._wake, self._nap_s())

    def _nap_s(self) -> float:
        due = self._table.next_due_ms()
        if due is None:
            return LONGEST_NAP_S
        return min(LONGEST_NAP_S, max(0.0, (due - self._clock.now_ms()) / 1000))

    def _follow_the_clock(self) -> None:
        now = self._clock.now_ms()
        ahead = now - self._clock.monotonic() * 1000
        self._jumped = self._ahead_ms is not None and ahead - self._ahead_ms > JUMP_MS
        self._ahead_ms = ahead
        if now >= self._seen_ms - TURN_BACK_MS:
            self._seen_ms = max(self._seen_ms, now)
            return
        log.warning("the wall clock was put back", extra={"seconds": (self._seen_ms - now) // 1000})
        self._seen_ms = now
        self._table.turn_back(now)
        for task_id in self._backlog:
            self._table.again(task_id, now)

    # Which tasks

    async def _take_up(self) -> None:
        """Bring the timetable in line with the tasks that changed."""
        changed, self._changed = self._changed, set()
        for number, task_id in enumerate(changed, 1):
            self._place(task_id, self._plan(self._registry.get(task_id)))
            if number % _BREATH == 0:
                await asyncio.sleep(0)

    def _plan(self, entry: Entry | None) -> Plan | None:
        if entry is None or entry.task is None:
            return None
        paused = find(entry.conditions, ConditionType.PAUSED)
        if paused is not None and paused.status:
            return None
        return plan_of(entry.task, self._zone)

    def _place(self, task_id: str, plan: Plan | None) -> None:
        stored = self._stored.pop(task_id, None)
        old = self._table.plan(task_id)
        if plan is None:
            self._table.drop(task_id)
            self._forget_backlog(task_id)
            return
        if old == plan:
            return
        now = self._clock.now_ms()
        last = self._table.last_ms(task_id)
        if old is None or last is None or not old.same_slots(plan):
            self._forget_backlog(task_id)
            last = stored if old is None else None
            if last is not None:
                self._resumed.add(task_id)
        if last is None:
            last = self._unsaved[task_id] = now
        self._table.put(plan, min(last, now))
        if task_id in self._backlog:
            self._table.again(task_id, now)

    def _forget_backlog(self, task_id: str) -> None:
        for known in (self._backlog, self._upto, self._failures):
            known.pop(task_id, None)

    # Their slots

    async def _fire(self, task_id: str) -> None:
        """Deal with a task that is due; whatever goes wrong concerns that task alone."""
        plan = self._table.plan(task_id)
        if plan is None:
            return
        try:
            if task_id not in self._backlog:
                self._decide(task_id)
            await self._work_off(task_id, plan)
        except Exception:
            log.exception("a cron task could not be dealt with", extra={"task_id": task_id})
            self._table.again(task_id, self._clock.now_ms() + _PAUSES_MS[-1])
        # A store in memory never gives way, and others want to run too.
        await asyncio.sleep(0)

    def _decide(self, task_id: str) -> None:
        now = self._clock.now_ms()
        settlement = self._table.settle(task_id, now)
        why = Why.SERVER_OFF if task_id in self._resumed else Why.STALLED
        why = Why.CLOCK_JUMPED if self._jumped and why is Why.STALLED else why
        self._resumed.discard(task_id)
        if settlement.upto_ms is None:
            self._table.dealt_with(task_id, None)
            return
        plan, last = self._table.plan(task_id), self._table.last_ms(task_id)
        if settlement.missed and plan is not None and last is not None:
            self._missed.note(Miss(task_id, plan.schedule, why, now, after_ms=last))
        if settlement.dropped:
            extra = {"task_id": task_id, "caught_up": MOST_CAUGHT_UP}
            log.warning("a cron task missed more slots than are caught up", extra=extra)
        self._backlog[task_id] = deque(settlement.fires)
        self._upto[task_id] = settlement.upto_ms

    async def _work_off(self, task_id: str, plan: Plan) -> None:
        backlog = self._backlog.get(task_id)
        if backlog is None:
            return
        written = False
        while backlog:
            started = await self._starter.start(plan, backlog[0])
            if started in (Started.BUSY, Started.TROUBLE):
                self._later(task_id, started)
                return
            fire = backlog.popleft()
            if self._failures.get(task_id) and not fire.catchup:
                self._note_slot(plan, fire.slot_ms, Why.STORAGE)
            written = started is Started.WRITTEN
        upto = self._upto[task_id]
        if written:
            self._unsaved.pop(task_id, None)
        else:
            self._unsaved[task_id] = upto
        self._forget_backlog(task_id)
        self._table.dealt_with(task_id, upto)

    def _note_late(self, run: Run, why: Why) -> None:
        plan = self._table.plan(run.task_id)
        if plan is not None and run.slot_ms is not None:
            self._note_slot(plan, run.slot_ms, why)

    def _note_slot(self, plan: Plan, slot_ms: int, why: Why) -> None:
        """Take note of a slot when it is late now."""
        now = self._clock.now_ms()
        if now - plan.schedule.due(plan.task_id, slot_ms) > GRACE_MS:
            miss = Miss(plan.task_id, plan.schedule, why, now, slot_ms=slot_ms)
            self._missed.note(miss)

    def _later(self, task_id: str, started: Started) -> None:
        """Come back to a task: soon after trouble; else its run's end is told, or looked up."""
        pause = _PAUSES_MS[-1]
        if started is Started.TROUBLE:
            failures = self._failures[task_id] = self._failures.get(task_id, 0) + 1
            pause = _PAUSES_MS[min(failures, len(_PAUSES_MS)) - 1]
        self._table.again(task_id, self._clock.now_ms() + pause)

    # What is remembered

    async def _save(self) -> None:
        """Store up to where tasks are dealt with, where no run says it."""
        unsaved, self._unsaved = self._unsaved, {}

        async def save(item: tuple[str, int]) -> None:
            try:
                await self._store.set_schedule_slot(*item)
            except DicodeError as error:
                log.warning("a slot could not be stored", extra={"code": error.code.value})
                self._unsaved.setdefault(*item)

        await _each(list(unsaved.items()), save)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call of the store, again and again while it is in trouble."""
        while True:
            try:
                return await call()
            except DicodeError as error:
                if error.code not in STORAGE_TROUBLE:
                    raise
                log.warning("cron waits for the store", extra={"code": error.code.value})
            await self._clock.wait(asyncio.Event(), _PAUSES_MS[0] / 1000)


async def _each(items: Collection[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do ``work`` for each item, a bounded number at once."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_AT_ONCE, len(items))):
            group.create_task(worker())

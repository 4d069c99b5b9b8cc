"""Processes that wait for the next run of a task: forked and confined, with no run yet.

Each becomes one run and is never used again. A run gets one only if its own process would be
confined in exactly the same way at that moment; otherwise, and whenever anything is unlike, the one
that waits is thrown away and the run's process is made as usual. Until its run begins it holds
nothing of it: no environment, no secret, no code of the task.

Decides which tasks are worth one and when; how one is made and ended is the executor's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any

from dicode_mcp.clock import Clock
from dicode_mcp.executor.forkserver.server import ForkServer
from dicode_mcp.executor.process import Held
from dicode_mcp.executor.sandbox.plan import Plan
from dicode_mcp.executor.shapes import shape, task_of, without_run
from dicode_mcp.protocols import Launch, LineSink

log = logging.getLogger("dicode.executor")

_MOST_KNOWN = 256
_AFTER_END_S = 0.005
_AFTER_START_S = 0.5
"""The next one is made when the run that took the last is over, or is seen to last."""


@dataclass(frozen=True, slots=True)
class StandbyBounds:
    """How many processes wait at most, for which tasks, and how long (seconds).

    A task is worth one that was started twice within ``hot_s``, and is not allowed to use more
    than ``memory`` bytes.
    """

    most: int = 4
    memory: int = 512 * 2**20
    hot_s: float = 300.0
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A process that waits. ``launch`` is what it was made for, without a run."""

    pid: int
    launch: Launch
    plan: Plan
    held: Held
    server: ForkServer
    out: int
    err: int
    tells: int
    """The input of a program that waits; -1 for what is told in another way."""
    places: tuple[tuple[int, int] | None, ...]
    """What the places that it is shown were, see ``places``."""
    sinks: list[LineSink]
    """Empty, or the sink of its run."""
    gone: asyncio.Event
    """Set some time after its end."""

    @property
    def alive(self) -> bool:
        """Whether it has not ended, by what the kernel says now."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is None


def places(plan: Plan) -> tuple[tuple[int, int] | None, ...]:
    """Identify what a plan shows: a folder that was replaced is another one, by the same path."""
    shown = (_identity(str(entry[1])) for entry in plan.entries if entry[0] == "bind")
    return (*shown, (0, mounts()))


def mounts() -> int:
    """Identify what is mounted: below a folder something may have come or gone."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return hash(file.read())
    except OSError:
        return 0


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(slots=True)
class _Place:
    """What is known of launches of one shape."""

    like: Launch
    used_at: float
    hot: bool = False
    ready: Ready | None = None
    coming: asyncio.Task[None] | None = None
    awaited: bool = False
    """A run waits for the one that is coming."""
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Counted:
    """How often a run found a process that waited, and why it did not."""

    taken: int = 0
    thrown_away: dict[str, int] = field(default_factory=dict[str, int])


class Standby:
    """Keeps processes ready. The executor's TaskGroup owns what it begins; ``close`` ends all.

    ``make`` makes a process for a launch that has no run, None when that cannot be; ``fits`` tells
    whether one would still be made in the same way; ``discard`` ends one.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        clock: Clock,
        bounds: StandbyBounds,
        *,
        make: Callable[[Launch], Awaitable[Ready | None]],
        fits: Callable[[Ready, Launch], bool],
        discard: Callable[[Ready], Coroutine[Any, Any, None]],
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._group = group
        self._clock = clock
        self._bounds = bounds
        self._make = make
        self._fits = fits
        self._discard = discard
        self._busy = busy
        self._places: OrderedDict[Hashable, _Place] = OrderedDict()
        """In order of use, the latest last."""
        self._closed = False
        self._changed = asyncio.Condition()
        self.counted = Counted()

    async def take(self, launch: Launch) -> Ready | None:
        """Give the process that waits for a launch like this one, and forget it; None without one.

        One that is being made is waited for: it is nearer than a new one.
        """
        place = self._noted(launch)
        if place is None:
            return None
        if place.coming is not None and not place.awaited:
            place.awaited = True
            await asyncio.wait([place.coming])
        ready, place.ready = place.ready, None
        if ready is None:
            return None
        why = "" if ready.alive else "it had ended"
        why = why or ("" if self._fits(ready, launch) else "its sandbox would be another one now")
        if why:
            self._throw_away(ready, why)
            return None
        self.counted.taken += 1
        return ready

    def began(self, launch: Launch) -> None:
        """Note that a launch has begun: the next one is wanted in a while."""
        self._want(launch, _AFTER_START_S)

    def ended(self, launch: Launch) -> None:
        """Note that a launch is over: the next one is wanted now."""
        self._want(launch, _AFTER_END_S)

    def tend(self) -> None:
        """Throw away what nobody has used for long."""
        now = self._clock.monotonic()
        for key, place in list(self._places.items()):
            if now - place.used_at > self._bounds.idle_s:
                self._forget(key, "nobody has used it")
            elif place.ready is not None and not place.ready.alive:
                self._give_up(place, "it had ended")

    def close(self) -> None:
        """Throw away all there are."""
        self._closed = True
        for key in list(self._places):
            self._forget(key, "the server stops")

    def waiting(self) -> list[Ready]:
        """Give the processes that wait."""
        return [p.ready for p in self._places.values() if p.ready is not None]

    async def until_ready(self, launch: Launch) -> Ready:
        """Wait until a process waits for launches like this one."""
        while True:
            place = self._places.get(shape(launch))
            if place is not None and place.ready is not None:
                return place.ready
            async with self._changed:
                await self._changed.wait()

    # ── Places ──

    def _noted(self, launch: Launch) -> _Place | None:
        """Note a start; gives the place of launches like it, None when none may wait for them."""
        key = shape(launch)
        if key is None or self._closed or self._bounds.most == 0 or not self._is_small(launch):
            return None
        now = self._clock.monotonic()
        place = self._places.pop(key, None)
        if place is None:
            self._forget_others(launch)
            place = _Place(without_run(launch), now)
        else:
            place.hot = now - place.used_at <= self._bounds.hot_s
        place.used_at = now
        self._places[key] = place
        if len(self._places) > _MOST_KNOWN:
            self._forget(next(iter(self._places)), "others are used more")
        return place

    def _is_small(self, launch: Launch) -> bool:
        asked = launch.policy.resources
        return asked is None or asked.memory is None or asked.memory <= self._bounds.memory

    def _forget_others(self, launch: Launch) -> None:
        """Forget what waits for an earlier version of the task, or of its permissions."""
        task = task_of(launch)
        for key, place in list(self._places.items()):
            if task and task_of(place.like) == task:
                self._forget(key, "its task was changed")

    def _forget(self, key: Hashable, why: str) -> None:
        place = self._places.pop(key)
        place.hot = False
        if place.timer is not None:
            place.timer.cancel()
        self._give_up(place, why)

    def _give_up(self, place: _Place, why: str) -> None:
        ready, place.ready = place.ready, None
        if ready is not None:
            self._throw_away(ready, why)

    def _throw_away(self, ready: Ready, why: str) -> None:
        thrown = self.counted.thrown_away
        thrown[why] = thrown.get(why, 0) + 1
        log.debug("a process that waited is thrown away", extra={"why": why})
        self._group.create_task(self._cleared(ready), name="standby")

    async def _cleared(self, ready: Ready) -> None:
        try:
            await self._discard(ready)
        except Exception:
            log.exception("a process that waited could not be cleared away")

    # ── Making one ──

    def _want(self, launch: Launch, delay_s: float) -> None:
        place = self._places.get(shape(launch))
        if place is None or not place.hot or place.ready is not None or place.coming is not None:
            return
        if place.timer is not None:
            place.timer.cancel()
        loop = asyncio.get_running_loop()
        place.timer = loop.call_later(delay_s, self._begin, place)

    def _begin(self, place: _Place) -> None:
        place.timer = None
        if self._closed or not place.hot or place.ready is not None or place.coming is not None:
            return
        if self._busy():
            return  # the end of a run asks again
        place.awaited = False
        while len(self._kept()) >= self._bounds.most:
            self._give_up(self._kept()[0], "others are used more")
        place.coming = self._group.create_task(self._fill(place), name="standby")

    def _kept(self) -> list[_Place]:
        return [p for p in self._places.values() if p.ready is not None]

    async def _fill(self, place: _Place) -> None:
        made: Ready | None = None
        try:
            made = await self._make(without_run(place.like))
        except Exception:
            # Runs do without; no fault here may end them.
            log.exception("a process that waits for a run could not be made")
            place.hot = False
        finally:
            place.coming = None
            place.ready, made = (made, None) if self._wanted(place) else (None, made)
            if made is not None:
                await self._cleared(made)
            async with self._changed:
                self._changed.notify_all()

    def _wanted(self, place: _Place) -> bool:
        return place.hot and not self._closed

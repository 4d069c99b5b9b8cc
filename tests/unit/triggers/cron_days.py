"""Days of cron tasks, played on a fake clock: what a story expects and what was seen."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from dicode_mcp.clock import iso, parse_iso
from dicode_mcp.protocols import Store
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.store import MemoryStore
from dicode_mcp.testing.waiting import running
from dicode_mcp.triggers.cron import CronTrigger

TASK = "t"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 365 * 86400}


def seconds(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


@dataclass
class Shop:
    """A server's time: rooms, a runner that ends runs at once, and the cron loop."""

    rooms: Rooms
    runner: InstantRunner
    cron: CronTrigger

    @property
    def clock(self) -> FakeClock:
        return self.rooms.clock

    async def settled(self, idle: bool = True) -> None:
        """Return when nothing more happens without time."""
        dispatcher = self.rooms.dispatcher
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            await self.clock.asleep()
            if dispatcher.running != self.runner.holding:
                continue
            if not dispatcher.waiting or not idle:
                return

    async def let(self, span: float, *, to_the_next: bool = True, idle: bool = True) -> None:
        """Let time pass: from due slot to due slot, or in naps as the loop takes them.

        Not ``idle``: runs may wait for a slot that is not to be had.
        """
        await self.settled(idle)
        left = float(span)
        while left > 0:
            step = min(left, self._step(to_the_next))
            self.clock.advance(step)
            left -= step
            await self.settled(idle)

    def _step(self, to_the_next: bool) -> float:
        nap = self.clock.next_wake() or 30.0
        if not to_the_next:
            return max(nap, 0.001)
        table = self.cron._table  # pyright: ignore[reportPrivateUsage]
        due = table.next_due_ms()
        if due is None:
            return 10.0 * UNITS["y"]
        ahead = (due - self.clock.now_ms()) / 1000
        return max(ahead, nap) if ahead < nap else ahead


@asynccontextmanager
async def open_shop(
    store: Store | None = None,
    clock: FakeClock | None = None,
    *tasks: Any,
    zone: str = "UTC",
    held: tuple[str, ...] = (),
    slots: int = 1_000_000,
) -> AsyncGenerator[Shop]:
    rooms = Rooms(store, clock, slots=slots)
    rooms.put(*tasks)
    await rooms.queue.recover()
    runner = InstantRunner(rooms)
    runner.held.update(held)
    cron = CronTrigger(
        rooms.queue, rooms.registry, rooms.store, rooms.bus, rooms.clock, ZoneInfo(zone)
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(runner.run()))
        await stack.enter_async_context(running(cron.run()))
        shop = Shop(rooms, runner, cron)
        await shop.settled()
        yield shop


@dataclass(frozen=True)
class Story:
    """``days``: ``run SPAN``, ``down SPAN``, ``jump SPAN`` (the wall clock alone) in order."""

    name: str
    zone: str
    cron: str
    start: str
    days: tuple[str, ...]
    expect: tuple[str, ...]
    """``slot`` or ``slot!`` (caught up), as UTC; after ``@`` when it started, if later."""
    options: tuple[tuple[str, Any], ...] = ()


async def play(story: Story) -> tuple[str, ...]:
    """Give what was seen, in the form of ``expect``, in the order of the slots."""
    trigger = {"cron": story.cron, "timezone": story.zone, **dict(story.options)}
    task = make_task(TASK, trigger=trigger)
    store, clock = MemoryStore(), FakeClock(parse_iso(story.start))
    stages: list[list[str]] = [[]]
    for day in story.days:
        if day.startswith("down"):
            stages.append([day])
        else:
            stages[-1].append(day)
    for stage in stages:
        if stage and stage[0].startswith("down"):
            clock.advance(seconds(stage.pop(0).split()[1]))
        async with open_shop(store, clock, task) as shop:
            for day in stage:
                await _live(shop, day)
    return await _seen(store)


async def _live(shop: Shop, day: str) -> None:
    verb, span = day.split()
    if verb == "run":
        await shop.let(seconds(span))
        return
    sign = -1 if span.startswith("-") else 1
    ahead = sign * seconds(span.lstrip("+-"))
    shop.clock.set_wall(shop.clock.now_ms() + ahead * 1000)
    # The loop notices at the end of its nap.
    shop.clock.advance(shop.clock.next_wake() or 0)
    await shop.settled()


async def _seen(store: MemoryStore) -> tuple[str, ...]:
    rooms = Rooms(store)
    seen: list[str] = []
    for run in sorted(await rooms.runs(TASK), key=lambda run: run.slot_ms or 0):
        assert run.slot_ms is not None
        text = _short(run.slot_ms) + ("!" if run.catchup else "")
        if run.created_at_ms != run.slot_ms:
            text += "@" + _short(run.created_at_ms)
        seen.append(text)
    return tuple(seen)


def _short(ms: int) -> str:
    text = iso(ms).removesuffix("Z").removesuffix(".000")
    return text.removesuffix(":00")


def table(story: Story, seen: tuple[str, ...]) -> str:
    """Write expected and seen fire times side by side."""
    lines = [
        f"{story.name}: '{story.cron}' in {story.zone} from {story.start}",
        f"  options {dict(story.options)}, days: {', '.join(story.days)}",
        f"  {'expected':<42} seen",
    ]
    height = max(len(story.expect), len(seen))
    for row in range(height):
        left = story.expect[row] if row < len(story.expect) else "-"
        right = seen[row] if row < len(seen) else "-"
        mark = " " if left == right else "≠"
        lines.append(f"{mark} {left:<42} {right}")
    return "\n".join(lines)

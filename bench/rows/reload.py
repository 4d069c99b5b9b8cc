"""A file is saved; how long until the task runs its new version?

The house's own parts from the watch to the registry, with the real loader and the Python runtime's
check, in this process. The floor watches a folder of the same size with watchfiles, on the same
loop, and does nothing but to be called.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]

from bench.figures import Limit, Result, figure
from bench.folders import write_reports
from bench.row import Plan, Row
from dicode_mcp.clock import SystemClock
from dicode_mcp.events import EventBus, Subscription, TasksChanged
from dicode_mcp.reconciler import Reconciler
from dicode_mcp.registry import Registry
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.spec.loader import TaskLoader
from dicode_runtimes.python import PythonRuntime

_SOURCE = "bench"
_SEEN_S = 10.0
_REST_S = 0.03
"""Between two saves, so that each is a change of its own and none waits for the one before."""

Save = Callable[[int], Awaitable[float]]
"""Save the n-th version of a file and give the ms until it was seen."""


def measure(plan: Plan) -> Iterator[Result]:
    for number in (1, 1000):
        room = plan.room / str(number)
        for name in ("ours", "floor"):
            write_reports(room / name, number)
        ours, floor = asyncio.run(_saves(room, plan.times(100, 20), number))
        yield Result(
            name=f"reload.{number}",
            what=f"a file is saved → the registry has the task's new version, {number:,} tasks, "
            "task.py written in place and task.yaml by rename in turn",
            ours=figure("save → live", "ms", ours),
            floor=figure("watchfiles callback (debounce 50, step 5)", "ms", floor),
            limits=(Limit("p50", "<=", 15), Limit("p99", "<=", 60)),
        )


async def _saves(room: Path, times: int, number: int) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    floor: list[float] = []
    async with _house(room, number) as save, _watcher(room / "floor", number) as save_floor:
        for version in range(1, times + 1):
            await asyncio.sleep(_REST_S)
            ours.append(await save(version))
            await asyncio.sleep(_REST_S)
            floor.append(await save_floor(version))
    return ours, floor


def _write(folder: Path, version: int) -> None:
    """Save a file as a program would (in place) or as an editor does (a rename)."""
    if version % 2:
        (folder / "task.py").write_text(f"def main():\n    return {version}\n")
        return
    path = folder / "task.yaml"
    text = path.read_text().splitlines()
    text[1] = f"description: Version {version}"
    new = folder / ".task.yaml.new"
    new.write_text("\n".join(text) + "\n")
    os.replace(new, path)


@asynccontextmanager
async def _house(room: Path, number: int) -> AsyncGenerator[Save]:
    """Watch ``room/ours`` as the server does."""
    root, twin = room / "ours", room / "twin"
    write_reports(twin, number=1)
    clock, bus, runtime = SystemClock(), EventBus(), PythonRuntime()
    registry = Registry(bus, clock, [_SOURCE])
    loader = TaskLoader(
        runtimes={runtime.name: runtime.scripts},
        environ={},
        home=room,
        data_dir=room / "data",
        config_dir=room,
    )
    source = LocalSource(_SOURCE, root)
    reconciler = Reconciler([source], loader, registry, {runtime.name: runtime}, clock)

    async def save(version: int) -> float:
        # Every task begins as this one did, save for its number; the first is edited.
        _write(twin / "report-00000", version)
        wanted = loader.load(
            twin / "report-00000", task_id="report-00000", source=_SOURCE, source_root=twin
        ).digest
        with bus.subscribe() as events:
            began = time.perf_counter()
            _write(root / "report-00000", version)
            async with asyncio.timeout(_SEEN_S):
                await _until(registry, events, "report-00000", wanted)
            return (time.perf_counter() - began) * 1000

    running = asyncio.create_task(reconciler.run())
    try:
        await reconciler.first_pass()
        await asyncio.sleep(0.5)
        yield save
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _until(registry: Registry, events: Subscription, task_id: str, digest: str) -> None:
    """Wait for an event after which the task is the wanted one, whole."""
    while True:
        event = await events.get()
        if isinstance(event, TasksChanged) and task_id in event.task_ids:
            entry = registry.get(task_id)
            if entry is not None and entry.task is not None and entry.task.digest == digest:
                return


@asynccontextmanager
async def _watcher(root: Path, number: int) -> AsyncGenerator[Save]:
    """Watch ``root`` with nothing behind the watch."""
    called = asyncio.Event()

    async def watch() -> None:
        async for _ in awatch(root, debounce=50, step=5):
            called.set()

    async def save(version: int) -> float:
        called.clear()
        began = time.perf_counter()
        _write(root / "report-00000", version)
        async with asyncio.timeout(_SEEN_S):
            await called.wait()
        took = (time.perf_counter() - began) * 1000
        await asyncio.sleep(_REST_S)
        return took

    running = asyncio.create_task(watch())
    try:
        await asyncio.sleep(0.3 + number / 2000)
        yield save
    finally:
        running.cancel()
        await asyncio.wait([running])


ROW = Row("reload", "a file saved → the task live, at 1 and at 1,000 tasks", measure)

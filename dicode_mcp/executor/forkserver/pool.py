"""The fork servers of one executor: started when wanted, few at a time, replaced when they age.

A launch is forked when a server of its kind is ready, and otherwise started as a new process:
nobody waits for a fork server, and the end of one is nothing to the runs it has made.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.executor.forkserver.server import ForkServer, Kind, Unusable
from dicode_mcp.executor.linux import is_subreaper
from dicode_mcp.executor.sandbox.cages import bare_environment
from dicode_mcp.executor.sandbox.plan import Plan
from dicode_mcp.executor.sandbox.probe import CAGE
from dicode_mcp.protocols import Launch, Warm

log = logging.getLogger("dicode.executor")

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 300.0
_LOOK_S = 1.0
_STEERING = ("OPENSSL_", "LC_")
"""Variables that are read when a module is imported or the interpreter starts."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many fork servers there are, and how long each lives."""

    servers: int = 4
    forks: int = 500
    age_s: float = 3600.0


@dataclass(slots=True)
class _Place:
    """One kind's: the server in use, and what its files looked like when it was started."""

    kind: Kind
    server: ForkServer | None = None
    starting: ForkServer | None = None
    stamp: object = None
    looked_at: float = 0.0
    since: float = 0.0
    failures: int = 0
    not_before: float = 0.0


class ForkServers:
    """Keeps fork servers. The executor's TaskGroup owns their lives; ``close`` ends them."""

    def __init__(
        self, group: asyncio.TaskGroup, clock: Clock, bounds: Bounds | None = None
    ) -> None:
        self._group = group
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._places: dict[Kind, _Place] = {}
        """In order of use, the latest last."""
        self._closed = False
        self._changed = asyncio.Condition()

    def ready(self, launch: Launch, plan: Plan) -> ForkServer | None:
        """Give the server that can make a launch's process; None, and one for later is begun.

        What becomes another program may come from any of them.
        """
        if not launch.within_python:
            return self._any() if plan.separate and launch.run_id and launch.instance_id else None
        if launch.warm is None or not self._open or not _qualifies(launch, plan):
            return None
        place = self._place(Kind(launch.argv[0], launch.warm))
        self._look(place)
        return place.server if place.server is not None and place.server.usable else None

    def _any(self) -> ForkServer | None:
        """Give a server for what does without its imports: the oldest kind, which is the house's.

        It is looked after as if it were used.
        """
        for place in self._places.values() if self._open else ():
            self._look(place)
            if place.server is not None and place.server.usable:
                return place.server
        return None

    def begin(self, python: str, warm: Warm) -> None:
        """Start a server before it is wanted."""
        if self._open:
            self._look(self._place(Kind(python, warm)))

    async def until_ready(self, python: str, warm: Warm) -> ForkServer:
        """Wait for a server of a kind, which is begun if there is none."""
        kind = Kind(python, warm)
        while True:
            place = self._place(kind)
            self._look(place)
            if place.server is not None and place.server.usable and place.starting is None:
                return place.server
            async with self._changed:
                await self._changed.wait()

    def pids(self) -> list[int]:
        """Give the processes of all servers there are."""
        both = [s for p in self._places.values() for s in (p.server, p.starting)]
        return [server.pid for server in both if server is not None and server.pid]

    def close(self) -> None:
        """Let all servers end."""
        self._closed = True
        for place in self._places.values():
            _close(place)

    @property
    def _open(self) -> bool:
        return not self._closed and self._bounds.servers > 0

    def _place(self, kind: Kind) -> _Place:
        place = self._places.pop(kind, None) or _Place(kind)
        self._places[kind] = place
        while len(self._places) > self._bounds.servers:
            oldest = next(iter(self._places))
            _close(self._places.pop(oldest))
        return place

    def _look(self, place: _Place) -> None:
        """Begin a server where there is none, or the one there is should be replaced."""
        now = self._clock.monotonic()
        server = place.server
        if server is not None and not server.usable:
            place.server = None
            self._failed(place, server, "it has ended")
            server = None
        if server is not None and now - place.looked_at >= _LOOK_S:
            place.looked_at = now
            if _stamp(place.kind) != place.stamp:
                # What it holds is not what is installed any more: not one run longer.
                server.close()
                place.server = server = None
        aged = server is not None and (
            server.forks >= self._bounds.forks or now - place.since >= self._bounds.age_s
        )
        if (server is None or aged) and place.starting is None and now >= place.not_before:
            place.starting = ForkServer(place.kind)
            self._group.create_task(self._live(place, place.starting), name="fork server")

    async def _live(self, place: _Place, server: ForkServer) -> None:
        """Be with a server from its start to its end."""
        try:
            stamp = await asyncio.to_thread(_stamp, place.kind)
            await server.start()
        except Unusable as error:
            self._failed(place, server, str(error))
        else:
            self._take_over(place, server, stamp)
        finally:
            await self._tell()
            if not server.usable:
                server.close()
            await server.ended()
        if place.server is server:
            place.server = None
            self._failed(place, server, "it has ended")

    def _take_over(self, place: _Place, server: ForkServer, stamp: object) -> None:
        old, place.server, place.starting = place.server, server, None
        now = self._clock.monotonic()
        place.stamp, place.looked_at, place.since = stamp, now, now
        if place.failures:
            place.failures = 0
            log.info("the fork server is back", extra={"python": place.kind.python})
        if old is not None:
            old.close()

    def _failed(self, place: _Place, server: ForkServer, why: str) -> None:
        if place.starting is server:
            place.starting = None
        if self._closed or self._places.get(place.kind) is not place:
            return
        wait = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2**place.failures)
        place.not_before = self._clock.monotonic() + wait
        place.failures += 1
        if place.failures == 1:
            log.warning(
                "the fork server is gone; runs are started as new processes meanwhile",
                extra={"python": place.kind.python, "why": why},
            )

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _close(place: _Place) -> None:
    server, place.server = place.server, None
    for each in (server, place.starting):
        if each is not None:
            each.close()


def _qualifies(launch: Launch, plan: Plan) -> bool:
    """Tell whether a forked interpreter would be like one that was started for the launch."""
    if not launch.within_python or not launch.run_id or not launch.instance_id:
        return False
    if not plan.separate and not is_subreaper():
        return False
    return bare_environment(launch.env).get("LANG", "C.UTF-8") == "C.UTF-8" and not any(
        name.startswith(_STEERING) for name in launch.env
    )


def _stamp(kind: Kind) -> object:
    """Give what changes when the files that a server has imported do."""
    folders = {kind.warm.path + "/" + name.partition(".")[0] for name in kind.warm.imports}
    found: list[tuple[str, int, int]] = []
    for folder in (*sorted(folders), str(Path(CAGE).parent)):
        found += _files(folder, lambda name: name.endswith(".py"))
    return (tuple(found), _identity(kind.python))


def _files(folder: str, wanted: Callable[[str], bool]) -> list[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as entries:
            chosen = sorted((e for e in entries if wanted(e.name)), key=lambda each: each.name)
            return [(e.path, e.stat().st_mtime_ns, e.stat().st_size) for e in chosen]
    except OSError:
        return []


def _identity(file: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino

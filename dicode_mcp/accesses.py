"""What the last runs of each task used: kept at hand while tasks run, and stored now and then.

A crash costs the last seconds of it. Who notes what, and what follows from it, is others' work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dicode_mcp.clock import Clock
from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Exit, Launch, Observing, Report, Runtime, Store
from dicode_mcp.runs.accesses import (
    MOST,
    Access,
    Ground,
    Seen,
    SeenRun,
    decode,
    encode,
    judged,
    mark_of,
    refused,
)
from dicode_mcp.runs.redaction import Redactor
from dicode_mcp.spec.model import Permissions, Task

log = logging.getLogger("dicode.accesses")

STORE_EVERY_S = 5.0
MOST_AT_HAND = 1000
"""Tasks; what is stored of more is read again when it is needed."""


class AccessBook:
    """What tasks used. ``run`` is its loop."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._seen: dict[str, Seen] = {}
        self._changed: set[str] = set()

    async def of(self, task_id: str) -> Seen:
        """Give what a task's last runs used."""
        known = self._seen.get(task_id)
        if known is not None:
            return known
        stored = _read(await self._store.accesses(task_id))
        return self._seen.setdefault(task_id, stored)

    async def note(self, task_id: str, run: SeenRun) -> None:
        """Add a run of a task."""
        before = await self.of(task_id)
        # Again, as another run of the task may have been noted meanwhile.
        self._seen[task_id] = self._seen.get(task_id, before).plus(run)
        self._changed.add(task_id)

    async def run(self) -> None:
        """Store what changed, until cancelled; then once more."""
        never = asyncio.Event()
        try:
            while not await self._clock.wait(never, STORE_EVERY_S):
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Store what changed. A store in trouble is tried again the next time."""
        changed, self._changed = self._changed, set()
        texts = {task_id: encode(self._seen[task_id]) for task_id in changed}
        try:
            if texts:
                await self._store.put_accesses(texts)
        except DicodeError as error:
            self._changed |= changed
            log.warning("what runs used could not be stored: %s", error.message)
        for task_id in list(self._seen)[: max(0, len(self._seen) - MOST_AT_HAND)]:
            if task_id not in self._changed:
                del self._seen[task_id]


def _read(text: str | None) -> Seen:
    if text is None:
        return Seen()
    try:
        return decode(text)
    except (ValueError, LookupError, TypeError):
        return Seen()


# ── What one start used ──


@dataclass(frozen=True, slots=True)
class Observed:
    """What a process used; ``whole``: all that can be seen of one was seen of it."""

    accesses: frozenset[Access] = frozenset()
    whole: bool = False
    under: str = ""
    """The permissions that were in force, by ``mark_of``."""

    @property
    def refused(self) -> list[Access]:
        """What it was refused, in order."""
        return refused(self.accesses)

    def as_run(self, run_id: str, at_ms: int, *, ok: bool) -> SeenRun:
        """Give it as what a run used."""
        return SeenRun(run_id, at_ms, ok, self.whole, self.accesses, self.under)


async def observed(
    task: Task, runtime: Runtime, launch: Launch, exit: Exit, report: Report
) -> Observed:
    """Put together what is known of a process that has ended, its secrets hidden.

    The network is told by its gate, calls by the server's end of the talk: these are facts. The
    rest is what the process said.
    """
    permissions = task.spec.permissions
    ground = _ground(task, launch, exit)
    told, whole = judged(report.used, permissions, ground), report.watched
    if isinstance(runtime, Observing):
        left, whole = await asyncio.to_thread(_left, runtime, launch, permissions, ground)
        told |= left
    facts = {*_network(exit), *report.calls}
    found = [*sorted(facts), *sorted(told - facts)][:MOST]
    hidden = frozenset(_hidden(found, launch.hide))
    whole = whole and (exit.reached is not None or not permissions.net)
    return Observed(hidden, whole, mark_of(permissions))


def _left(
    runtime: Observing, launch: Launch, permissions: Permissions, ground: Ground
) -> tuple[frozenset[Access], bool]:
    """Judge what a process left word of: there may be much of it, so not on the event loop."""
    hints, whole = runtime.used(launch)
    return judged(hints, permissions, ground), whole


def _ground(task: Task, launch: Launch, exit: Exit) -> Ground:
    policy = launch.policy
    declared = {entry.name for entry in task.spec.permissions.env}
    own = (policy.scratch, exit.waited_in, launch.ipc_path)
    return Ground(
        str(policy.task_folder),
        read=tuple(str(path) for path in policy.read),
        write=tuple(str(path) for path in own if path is not None),
        env=frozenset(launch.env) - declared,
        gated=exit.reached is not None,
    )


def _network(exit: Exit) -> Iterable[Access]:
    for place in exit.reached or ():
        yield Access("net", place, True)
    for rule in exit.unreached:
        yield Access("net", rule, False)


def _hidden(accesses: Iterable[Access], hide: Redactor) -> Iterable[Access]:
    for access in accesses:
        yield replace(access, what=hide.text(access.what)) if hide else access

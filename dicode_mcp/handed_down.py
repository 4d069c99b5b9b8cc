"""Hiding in a run what the runs before it knew: a parent may hand its secrets on as plain values.

Which values these are is kept in memory for as long as there is room. Those that may have been
handed on are also kept with the run, sealed: under the next server they may be others.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Protocol

from dicode_mcp.environment import Resolved
from dicode_mcp.registry import Registry
from dicode_mcp.runs.model import Run, Trigger
from dicode_mcp.runs.redaction import Redactor
from dicode_mcp.spec.model import DicodeGrants, Task

MAX_KNOWN = 10_000
"""Runs that are remembered; most have no values to hide."""
MAX_BYTES = 32 * 1024 * 1024
"""What the values of all of them may take, in the forms they are looked for in."""
MAX_STEPS = 20
"""How far back it is looked; chains and calls are at most 16 deep."""


class Resolver(Protocol):
    """What gives a run its environment."""

    async def resolve(self, run: Run, task: Task) -> Resolved:
        """Give the variables of one run; see ``Environment``."""
        ...


class Runs(Protocol):
    """Where runs are kept."""

    async def get_run(self, run_id: str) -> Run | None:
        """Read a run."""
        ...

    async def get_hidden(self, run_id: str) -> str | None:
        """Read which values a run must not show. Raises SECRETS_LOCKED."""
        ...

    async def put_hidden(self, run_id: str, values: str) -> None:
        """Keep which values a run must not show."""
        ...


class HandedDown:
    """Resolves as ``inner`` does, and hides besides what the runs before were not to show.

    Belongs to one event loop.
    """

    def __init__(
        self, inner: Resolver, runs: Runs, registry: Registry, room: int = MAX_BYTES
    ) -> None:
        self._inner = inner
        self._runs = runs
        self._registry = registry
        self._room = room
        self._known: OrderedDict[str, tuple[Redactor, int]] = OrderedDict()
        """With the bytes of each as it began; newest use last."""
        self._held = 0

    async def resolve(self, run: Run, task: Task) -> Resolved:
        """Give the variables of one run. Raises what ``inner`` and the store raise."""
        resolved = await self._inner.resolve(run, task)
        inherited = Redactor({})
        await self._inherit(run, inherited)
        resolved.hide.include(inherited)
        await self._keep(run, resolved.hide if _may_hand_on(task) else inherited)
        # As it is, and not a copy: it may learn more while the run is on.
        self._note(run.id, resolved.hide)
        return resolved

    async def keep(self, run: Run, task: Task, hide: Redactor) -> None:
        """Keep what a run learned to hide, for what comes of it under another server."""
        if _may_hand_on(task):
            await self._keep(run, hide)

    async def _keep(self, run: Run, hide: Redactor) -> None:
        if hide.pairs:
            await self._runs.put_hidden(run.id, json.dumps(hide.pairs))

    async def hiding(self, run: Run) -> Redactor | None:
        """Give what hides all that ``run`` may have been started with.

        None when a run that it comes of had values that are not remembered: what its task declares
        may have changed, and so may the secrets.
        """
        hide = Redactor({})
        own = self._known.get(run.id)
        if own is not None:
            hide.include(own[0])
            return hide
        waiting, seen = _handed_by(run), {run.id}
        while waiting:
            run_id, of_its_own = waiting.pop(0)
            if run_id in seen:
                continue
            seen.add(run_id)
            known = self._known.get(run_id)
            if known is not None:
                hide.include(known[0])
                continue
            earlier = await self._runs.get_run(run_id) if len(seen) <= MAX_STEPS else None
            if earlier is None or (of_its_own and not self._has_no_secret(earlier)):
                return None
            waiting += _handed_by(earlier)
        return hide

    def _has_no_secret(self, run: Run) -> bool:
        entry = self._registry.get(run.task_id)
        task = entry.task if entry else None
        if task is None or task.digest != run.task_hash:
            return False
        granted = task.spec.permissions
        return not granted.dicode.secrets_write and all(e.source == "literal" for e in granted.env)

    async def _inherit(self, run: Run, hide: Redactor) -> None:
        waiting, seen = _before(run), {run.id}
        while waiting and len(seen) <= MAX_STEPS:
            run_id = waiting.pop(0)
            if run_id in seen:
                continue
            seen.add(run_id)
            known = self._known.get(run_id)
            if known is not None:
                # It has what those before it had.
                hide.include(known[0])
                self._known.move_to_end(run_id)
                continue
            earlier = await self._runs.get_run(run_id)
            if earlier is None:
                continue
            kept = await self._runs.get_hidden(run_id)
            if kept is not None:
                hide.learn((name, value) for name, value in json.loads(kept))
                continue
            # It handed on nothing but what it was given, or never started.
            waiting += _before(earlier)

    def _note(self, run_id: str, hide: Redactor) -> None:
        self._forget(run_id)
        self._known[run_id] = (hide, hide.size)
        self._held += hide.size
        while len(self._known) > MAX_KNOWN or (self._held > self._room and len(self._known) > 1):
            self._forget(next(iter(self._known)))

    def _forget(self, run_id: str) -> None:
        _, size = self._known.pop(run_id, (None, 0))
        self._held -= size


def _may_hand_on(task: Task) -> bool:
    """Tell whether a task's runs may start others; what they end with is shown without secrets."""
    return task.spec.permissions.dicode != DicodeGrants()


_FROM_RESULTS = frozenset({Trigger.CHAIN, Trigger.NOTIFY})
"""They begin with what a run gave or how it ended, in which nothing is left to hide."""


def _handed_by(run: Run) -> list[tuple[str, bool]]:
    """Give the runs that may have handed on what they were not to show.

    And whether that may be of their own: a replay has but what the run before was given.
    """
    parent = None if run.trigger in _FROM_RESULTS else run.parent_run_id
    found = ((parent, True), (run.replay_of, False), (run.retry_of, False))
    return [(run_id, own) for run_id, own in found if run_id is not None]


def _before(run: Run) -> list[str]:
    """Give the runs whose values a run may have been started with."""
    found = (run.parent_run_id, run.replay_of, run.retry_of)
    return [run_id for run_id in found if run_id is not None]

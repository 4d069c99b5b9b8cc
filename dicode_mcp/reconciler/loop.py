"""All sources at once: a worker each, so that none waits for another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Runtime, Source
from dicode_mcp.reconciler.look import Eyes, NotInForce, TaskLoader
from dicode_mcp.reconciler.worker import Timing, Worker
from dicode_mcp.registry import Registry, SourceState
from dicode_mcp.sources.discovery import Limits


class Reconciler:
    """Keeps ``registry`` equal to ``sources`` while ``run`` runs."""

    def __init__(
        self,
        sources: Sequence[Source],
        loader: TaskLoader,
        registry: Registry,
        runtimes: Mapping[str, Runtime],
        clock: Clock,
        *,
        not_in_force: NotInForce = lambda task: (),
        limits: Limits | None = None,
        timing: Timing | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        eyes = Eyes(loader, runtimes, not_in_force, clock, limits or Limits())
        self._registry = registry
        self._workers = {
            source.name: Worker(
                source,
                eyes,
                registry,
                clock,
                timing or Timing(),
                log or logging.getLogger("dicode.reconciler"),
            )
            for source in sources
        }

    async def run(self) -> None:
        """Reconcile every source until cancelled."""
        async with asyncio.TaskGroup() as group:
            for worker in self._workers.values():
                group.create_task(worker.run())
            group.create_task(self._start())

    async def first_pass(self) -> None:
        """Return when every source has been looked at once, well or not."""
        for worker in self._workers.values():
            await worker.first_pass.wait()

    async def sync(self, source: str) -> SourceState:
        """Look at a source now; give how it stands afterwards.

        Raises SOURCE_NOT_FOUND, and SHUTTING_DOWN when the server stops meanwhile. A source that
        cannot be fetched is no error here: its state says so.
        """
        worker = self._workers.get(source)
        if worker is None:
            names = ", ".join(sorted(self._workers)) or "none"
            raise DicodeError(
                Code.SOURCE_NOT_FOUND,
                f"there is no source {source!r}",
                hint=f"sources: {names}; list_sources shows them",
                data={"sources": sorted(self._workers)},
            )
        await worker.sync()
        state = self._registry.source_state(source)
        assert state is not None, "every pass notes the state of its source"
        return state

    async def _start(self) -> None:
        await self.first_pass()
        self._registry.started()

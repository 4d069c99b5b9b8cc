"""All sources at once: a worker each, so that none waits for another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Runtime, Source
from dicode_mcp.reconciler.declare import Identity
from dicode_mcp.reconciler.earlier import Approved, Beside, nothing_beside
from dicode_mcp.reconciler.look import Eyes, Gate, NotInForce, TaskLoader
from dicode_mcp.reconciler.worker import Outside, Timing, Worker
from dicode_mcp.reconciler.world import Places
from dicode_mcp.registry import Entry, Registry, SourceState
from dicode_mcp.spec.taskset.documents import TaskSetDoc
from dicode_mcp.spec.taskset.explain import Explained
from dicode_mcp.spec.taskset.resolution import Declared
from dicode_mcp.spec.yaml12 import Document


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
        places: Places | None = None,
        outside: Outside | None = None,
        inline_dir: Path = Path("/nowhere"),
        inline: Mapping[str, TaskSetDoc] | None = None,
        review: Collection[str] = (),
        tags: Mapping[str, tuple[str, ...]] | None = None,
        gate: Gate = lambda task, trust: None,
        approved: Approved = lambda task_id: (),
        beside: Beside = nothing_beside,
        timing: Timing | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        """Take what is constant while the server runs.

        ``inline`` are sets written in the configuration, by source; ``review`` names the sources
        whose every change waits for an approval, which ``gate`` decides; of what waits, the
        version in ``approved`` stays in force, read ``beside`` the newest when need be.
        """
        eyes = Eyes(
            loader,
            runtimes,
            not_in_force,
            clock,
            places or Places(),
            inline_dir,
            gate,
            approved,
            beside,
            registry.in_dev_mode,
        )
        self._registry = registry

        def work(source: Source) -> Worker:
            return Worker(
                source,
                eyes,
                registry,
                clock,
                timing or Timing(),
                log or logging.getLogger("dicode.reconciler"),
                outside or Outside(_no_manifest),
                Identity(
                    source.name,
                    source.namespace,
                    source.location if source.kind == "git" else None,
                    (inline or {}).get(source.name),
                    source.name in review,
                    (tags or {}).get(source.name, ()),
                ),
            )

        self._work = work
        self._group: asyncio.TaskGroup | None = None
        self._workers = {source.name: work(source) for source in sources}

    async def run(self) -> None:
        """Reconcile every source until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for worker in self._workers.values():
                    group.create_task(worker.run())
                group.create_task(self._start())
        finally:
            self._group = None

    def add(self, source: Source) -> None:
        """Reconcile one more source from now on, unless there is one of its name."""
        if source.name in self._workers:
            return
        worker = self._workers[source.name] = self._work(source)
        if self._group is not None:
            self._group.create_task(worker.run())

    async def first_pass(self) -> None:
        """Return when every source has been looked at once, well or not."""
        for worker in list(self._workers.values()):
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

    def wake(self, source: str) -> None:
        """Resolve a source's sets again soon: something that they depend on was decided anew."""
        worker = self._workers.get(source)
        if worker is not None:
            worker.wake()

    async def explain(self, entry: Entry) -> tuple[Explained, ...]:
        """Say where each value of a task's effective manifest is written."""
        worker = self._workers.get(entry.source)
        if worker is None or entry.task is None:
            return ()
        return await worker.explain(entry.id, entry.task.manifest or {})

    def declared(self, entry: Entry) -> Declared | None:
        """Give what the entry's source lays over its folder, and the trees it is from."""
        worker = self._workers.get(entry.source)
        return worker.overlay(entry.id) if worker else None

    async def _start(self) -> None:
        await self.first_pass()
        self._registry.started()


def _no_manifest(folder: Path) -> Document:
    raise DicodeError(Code.NOT_SUPPORTED, "manifests cannot be read here")

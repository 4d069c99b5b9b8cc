"""The rooms of one server, wired: the only module that names concrete adapters.

It decides who is given what. When things start and stop is the daemon's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from dicode_mcp import __version__
from dicode_mcp.chains import Chains
from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.config import Config, SourceConfig
from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.environment import Environment
from dicode_mcp.events import EventBus
from dicode_mcp.executor.spawn import SpawnExecutor
from dicode_mcp.ipc.server import SessionServer
from dicode_mcp.preparer import Preparer
from dicode_mcp.protocols import Runtime, RuntimeHost, Source, Store
from dicode_mcp.queue import Queue
from dicode_mcp.reconciler import ReadinessLog, Reconciler
from dicode_mcp.registry import Registry, SourceState
from dicode_mcp.runner import Runner
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.service import Services
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.inside import Inside
from dicode_mcp.service.runs import RunsService
from dicode_mcp.service.sources import SourcesService
from dicode_mcp.service.status import ServerFacts, StatusService
from dicode_mcp.service.tasks import TasksService
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.spec.digest import DigestCache
from dicode_mcp.spec.hook_secret import webhook_secret_missing
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.support import not_in_force
from dicode_mcp.tools.hub import Hub
from dicode_mcp.triggers.chain import ChainConditions
from dicode_mcp.triggers.cron import CronTrigger
from dicode_mcp.triggers.daemons import DaemonTrigger
from dicode_mcp.triggers.zone import server_zone

log = logging.getLogger("dicode.daemon")


class House:
    """The rooms of one server, wired and not yet running."""

    def __init__(
        self,
        config: Config,
        *,
        store: Store,
        executor: SpawnExecutor,
        instance_id: str,
        environ: Mapping[str, str],
        clock: Clock,
        url: Callable[[], str | None],
        log_limits: LogLimits,
    ) -> None:
        self._store = store
        self._executor = executor
        self._instance_id = instance_id
        self._scratch = config.data_dir / "runs"
        bus = EventBus()
        self._runtimes = load_runtimes(
            config, RuntimeHost(cache=config.data_dir / "cache", environ=environ)
        )
        loader = _task_loader(config, self._runtimes, environ, clock)
        self.registry = Registry(bus, clock, [source.label for source in config.sources])
        self.dispatcher = LocalDispatcher(config.execution.max_concurrent_runs, clock)
        chains = Chains(self.registry)
        self.queue = Queue(
            store,
            self.registry,
            chains,
            self.dispatcher,
            bus,
            clock,
            config.defaults.on_failure_chain,
        )
        self.reconciler = Reconciler(
            _sources(config),
            loader,
            self.registry,
            self._runtimes,
            clock,
            not_in_force=_declared,
        )
        self.show_unread(config.sources)
        self.audit = Audit(store, clock)
        inside = Inside(queue=self.queue, registry=self.registry, store=store, bus=bus, clock=clock)
        self.preparer = Preparer(
            registry=self.registry,
            runtimes=self._runtimes,
            executor=executor,
            bus=bus,
            clock=clock,
            scratch=self._scratch,
            instance_id=instance_id,
        )
        self.runner = Runner(
            queue=self.queue,
            dispatcher=self.dispatcher,
            store=store,
            runtimes=self._runtimes,
            executor=executor,
            sessions=SessionServer(inside),
            environment=Environment(environ, config.withheld_variables),
            bus=bus,
            clock=clock,
            scratch=self._scratch,
            instance_id=instance_id,
            log_limits=log_limits,
        )
        zone = ZoneInfo(config.defaults.timezone) if config.defaults.timezone else None
        self.cron = CronTrigger(
            self.queue, self.registry, store, bus, clock, zone or server_zone(environ)
        )
        self.daemons = DaemonTrigger(self.queue, self.registry, bus, clock)
        self._chain_conditions = ChainConditions(chains, self.registry, bus)
        self._readiness = ReadinessLog(self.registry, bus)
        self.hub = Hub(bus)
        self.services = Services(
            tasks=TasksService(
                registry=self.registry,
                queue=self.queue,
                store=store,
                loader=loader,
                check=self._check,
                audit=self.audit,
                clock=clock,
                next_run=self.cron.next_run_ms,
            ),
            runs=RunsService(
                queue=self.queue,
                registry=self.registry,
                store=store,
                bus=bus,
                audit=self.audit,
            ),
            sources=SourcesService(
                registry=self.registry, syncer=self.reconciler, audit=self.audit
            ),
            status=StatusService(
                facts=ServerFacts(
                    version=__version__,
                    pid=os.getpid(),
                    started_at_ms=clock.now_ms(),
                    data_dir=str(config.data_dir),
                    config_file=str(config.file) if config.file else None,
                    url=url,
                    sandbox=executor.enforcement(),
                    notes=tuple(config.not_in_force()),
                ),
                registry=self.registry,
                store=store,
                slots=self.dispatcher,
                runtimes=lambda: {n: r.health() for n, r in self._runtimes.items()},
                bus=bus,
                clock=clock,
            ),
            inside=inside,
        )

    def loops(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Give what runs while the server does."""
        return [
            ("hub", self.hub.run()),
            ("reconciler", self.reconciler.run()),
            ("preparer", self.preparer.run()),
            ("runner", self.runner.run()),
            ("chains", self._chain_conditions.run()),
            ("readiness", self._readiness.run()),
        ]

    def show_unread(self, sources: Iterable[SourceConfig]) -> None:
        """List the configured sources that this build does not read, as what they are."""
        for source in sources:
            if source.type == "git":
                told = "git sources are not fetched by this build; use type: local"
                synced = Condition(ConditionType.SYNCED, False, "NotBuilt", told)
                state = SourceState(source.label, "git", source.url or "", conditions=(synced,))
                self.registry.put_source(state)

    async def clean(self) -> None:
        """Remove what a crashed server left: processes of its tasks, folders of their runs."""
        ended = await self._executor.sweep(self._instance_id)
        if ended:
            log.warning("ended %d processes that a crashed server left", ended)
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700, exist_ok=True)

    async def recover(self) -> None:
        """Show stored pauses, and deal with the runs a crashed server left."""
        for pause in (await self._store.pauses()).values():
            self.services.tasks.show_pause(pause)
        requeued, lost = await self.queue.recover()
        if requeued or lost:
            log.warning("after a crash: %d runs go on, %d are lost", requeued, lost)

    def _check(self, task: Task) -> list[Condition]:
        runtime = self._runtimes.get(task.spec.runtime)
        found = list(runtime.check(task)) if runtime else []
        return [*found, *_declared(task)]


def _declared(task: Task) -> tuple[Condition, ...]:
    """Give what is said of a task's manifest as this build reads it."""
    return (*not_in_force(task), *webhook_secret_missing(task))


def load_runtimes(config: Config, host: RuntimeHost) -> dict[str, Runtime]:
    """Make the runtimes that are installed (entry points ``dicode_mcp.runtimes``) and enabled.

    A class with ``for_server`` is made by it, and so knows of the server; others take nothing.
    """
    found: dict[str, Runtime] = {}
    for point in entry_points(group="dicode_mcp.runtimes"):
        chosen = config.runtimes.get(point.name)
        if chosen is None or chosen.enabled:
            kind = point.load()
            found[point.name] = kind.for_server(host) if hasattr(kind, "for_server") else kind()
    return found


def _task_loader(
    config: Config, runtimes: Mapping[str, Runtime], environ: Mapping[str, str], clock: Clock
) -> TaskLoader:
    return TaskLoader(
        runtimes={name: runtime.scripts for name, runtime in runtimes.items()},
        environ=environ,
        home=Path(environ.get("HOME") or "/"),
        data_dir=config.data_dir,
        config_dir=config.file.parent if config.file else Path.cwd(),
        withheld=config.withheld_variables,
        cache=DigestCache(clock),
    )


def _sources(config: Config) -> list[Source]:
    """Make the sources; ids begin with a source's name only when the user gave it one."""
    return [
        LocalSource(source.label, Path(source.path or ""), namespace=source.name or "")
        for source in config.sources
        if source.type == "local"
    ]

"""The rooms of one server, wired: the only module that names concrete adapters.

It decides who is given what. When things start and stop is the daemon's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from dicode_mcp import __version__
from dicode_mcp.budgets import Budgets
from dicode_mcp.bundled import AGENT_RUNNER, bundled
from dicode_mcp.chains import Chains
from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition
from dicode_mcp.config import Config
from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.environment import Environment
from dicode_mcp.events import EventBus
from dicode_mcp.executor.spawn import SpawnExecutor
from dicode_mcp.ipc.server import SessionServer
from dicode_mcp.limits import limit_of
from dicode_mcp.origins import (
    all_sources,
    git_refs,
    git_sources,
    host_names,
    inline_source,
    own_source,
    push_hooks,
    registry_places,
    switchable,
    vouches,
    work_tree,
)
from dicode_mcp.preparer import Preparer
from dicode_mcp.protocols import (
    Approval,
    Runtime,
    RuntimeHost,
    SourceOverrides,
    Store,
    Warming,
)
from dicode_mcp.queue import Queue
from dicode_mcp.reconciler import Outside, Places, ReadinessLog, Reconciler
from dicode_mcp.reconciler.keeping import Keeper
from dicode_mcp.reconciler.locks import Locks
from dicode_mcp.registry import Registry
from dicode_mcp.retention import Retention, Rule, inputs_age
from dicode_mcp.runner import Runner
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.service import Services
from dicode_mcp.service.agents import Agents
from dicode_mcp.service.approvals import Approvals, ApprovalsService
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.authoring import AuthoringService, Grounds
from dicode_mcp.service.changes import changes, grants
from dicode_mcp.service.desk import Desk
from dicode_mcp.service.dev_mode import DevModeService, Switches
from dicode_mcp.service.entry_homes import FOLDER as INSTALLED
from dicode_mcp.service.entry_homes import Homes, OwnSet, own_name
from dicode_mcp.service.events import EventsService
from dicode_mcp.service.history import HistoryService
from dicode_mcp.service.hook_runs import HookRuns
from dicode_mcp.service.hooks import HooksService
from dicode_mcp.service.inside import Inside
from dicode_mcp.service.meter import Meter
from dicode_mcp.service.pins import Pins
from dicode_mcp.service.previews import Previews
from dicode_mcp.service.pushes import PushService
from dicode_mcp.service.questions import QuestionsService
from dicode_mcp.service.registries import Registries
from dicode_mcp.service.replays import ReplayService
from dicode_mcp.service.runs import RunsService
from dicode_mcp.service.sharing import SharingService
from dicode_mcp.service.sharing_views import Review
from dicode_mcp.service.sources import SourcesService
from dicode_mcp.service.status import ServerFacts, StatusService
from dicode_mcp.service.task_api import TaskApiService
from dicode_mcp.service.tasks import TasksService
from dicode_mcp.service.updates import UpdateService
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.sources.working.copies import WorkingCopies
from dicode_mcp.spec.digest import DigestCache
from dicode_mcp.spec.hook_secret import webhook_secret_missing
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.support import not_in_force
from dicode_mcp.spec.withheld import Withheld
from dicode_mcp.telling import Notices, NotifySettings
from dicode_mcp.tools.hub import Hub
from dicode_mcp.triggers.api_types import ApiTypes
from dicode_mcp.triggers.chain import ChainConditions
from dicode_mcp.triggers.cron import CronTrigger
from dicode_mcp.triggers.daemons import DaemonTrigger
from dicode_mcp.triggers.deadlines import Deadlines
from dicode_mcp.triggers.notices import NoticeConditions
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
        overrides: Mapping[str, SourceOverrides] | None = None,
        approved: Mapping[str, Sequence[Approval]] | None = None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._instance_id = instance_id
        self._scratch = config.data_dir / "runs"
        home = Path(environ.get("HOME") or "/")
        bus = EventBus()
        self._runtimes = load_runtimes(
            config, RuntimeHost(cache=config.data_dir / "cache", environ=environ)
        )
        withheld = Withheld(config.withheld_variables)
        loader = _task_loader(config, self._runtimes, environ, clock, withheld)
        written = inline_source(config)
        order = [source.label for source in config.sources]
        order += [written.name] if written else []
        shipped = bundled(config, order)
        ranks = [*order, own_name(order), *((shipped.source.name,) if shipped else ())]
        self.registry = Registry(bus, clock, ranks)
        self.dispatcher = LocalDispatcher(
            config.execution.max_concurrent_runs, clock, limit_of(self.registry)
        )
        named_zone = config.defaults.timezone
        zone = ZoneInfo(named_zone) if named_zone else server_zone(environ)
        self._budgets = Budgets(self.registry, store, clock, zone)
        self._bus = bus
        chains = Chains(self.registry, _started_by_any(config))
        notices = Notices(self.registry, NotifySettings.of(config))
        self.queue = Queue(
            store,
            self.registry,
            chains,
            self.dispatcher,
            bus,
            clock,
            config.defaults.on_failure_chain,
            notices,
            Random(),
            config.defaults.run_inputs,
            self._budgets,
        )
        copies = WorkingCopies(config.data_dir, environ, allow_local=config.server.allow_local_git)
        self.checkouts = GitCheckouts(
            config.data_dir,
            environ=environ,
            clock=clock,
            random=Random(),
            allow_local=config.server.allow_local_git,
        )
        from_git = git_sources(config, self.checkouts, environ, overrides or {})
        sources = switchable(config, all_sources(config, from_git), overrides or {}, copies)
        own = OwnSet(
            own_name(order),
            config.data_dir / INSTALLED / "taskset.yaml",
            lambda: self.reconciler.add(own_source(own)),
        )
        vouched = vouches(config)
        approvals = Approvals(approved or {})
        self.reconciler = Reconciler(
            [
                *sources.values(),
                *((written,) if written else ()),
                *((shipped.source,) if shipped else ()),
                *((own_source(own),) if own.file.exists() else ()),
            ],
            loader,
            self.registry,
            self._runtimes,
            clock,
            not_in_force=_declared,
            places=Places(
                host=host_names(config),
                home=home,
                checkouts=self.checkouts,
                find_lock=Locks(clock, vouched, config.data_dir / "pinned.json").find,
            ),
            outside=Outside(loader.read, self.checkouts, withhold=withheld.put),
            inline_dir=config.data_dir / "inline",
            inline={
                **({written.name: config.entries} if written and config.entries else {}),
                **({shipped.source.name: shipped.entries} if shipped else {}),
            },
            review=[s.label for s in config.sources if s.trust == "review"],
            tags={s.label: s.tags for s in config.sources},
            gate=approvals.gate,
            approved=approvals.of,
            beside=self.checkouts.beside,
        )
        registries = Registries(
            registry_places(config),
            checkouts=self.checkouts,
            home=home,
            clock=clock,
            tasks=self.registry,
            declarations=self.reconciler,
        )
        self.audit = Audit(store, clock)
        inside = Inside(
            queue=self.queue,
            registry=self.registry,
            store=store,
            bus=bus,
            clock=clock,
            agents=Agents(
                queue=self.queue,
                registry=self.registry,
                runtimes=self._runtimes,
                runner=AGENT_RUNNER,
            ),
        )
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
            environment=Environment(environ, withheld),
            bus=bus,
            clock=clock,
            scratch=self._scratch,
            instance_id=instance_id,
            log_limits=log_limits,
        )
        self._keeper = Keeper(
            self.checkouts, self.registry, self.runner.tasks, bus, clock, approvals.of
        )
        self.cron = CronTrigger(self.queue, self.registry, store, bus, clock, zone)
        self.daemons = DaemonTrigger(self.queue, self.registry, bus, clock)
        self.deadlines = Deadlines(self.queue, store, bus, clock)
        self._chain_conditions = ChainConditions(chains, self.registry, bus)
        self._notice_conditions = NoticeConditions(notices, self.registry, store, bus)
        self._readiness = ReadinessLog(self.registry, bus)
        self._api_types = ApiTypes(self.registry, bus)
        self.meter = Meter(bus)
        self._retention = Retention(store, self.registry, clock, _retention_rule(config))
        self.hub = Hub(bus)
        self.events = EventsService(bus=bus, store=store, clock=clock, epoch=secrets.token_hex(4))
        self.hook_runs = HookRuns(store=store, queue=self.queue, events=self.events)
        refs = git_refs(config)
        sources_service = SourcesService(
            registry=self.registry,
            syncer=self.reconciler,
            audit=self.audit,
            pins=Pins(from_git, sources, store),
        )
        approving = ApprovalsService(
            approvals=approvals,
            registry=self.registry,
            syncer=self.reconciler,
            store=store,
            audit=self.audit,
            clock=clock,
        )
        desk = Desk(
            homes=Homes(self.registry, sources.get, own),
            previews=Previews(
                self.checkouts,
                loader,
                clock,
                home=home,
                host=host_names(config),
                inline_dir=config.data_dir / "inline",
                vouched=vouched,
            ),
            review=Review(grants, changes),
            registry=self.registry,
            syncer=self.reconciler,
            audit=self.audit,
            clock=clock,
            zone=zone,
            vouched=vouched,
        )
        runs_service = RunsService(
            queue=self.queue,
            registry=self.registry,
            store=store,
            bus=bus,
            audit=self.audit,
        )
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
                layers=self.reconciler,
                base_url=lambda: config.server.public_url or url(),
                shipped=shipped.source.name if shipped else None,
            ),
            runs=runs_service,
            replays=ReplayService(
                queue=self.queue, registry=self.registry, store=store, audit=self.audit
            ),
            task_api=TaskApiService(
                registry=self.registry,
                store=store,
                runs=runs_service,
                types=self._api_types,
                clock=clock,
            ),
            questions=QuestionsService(
                queue=self.queue, store=store, bus=bus, audit=self.audit, clock=clock
            ),
            history=HistoryService(
                store=store,
                registry=self.registry,
                retention=self._retention,
                audit=self.audit,
                clock=clock,
            ),
            sources=sources_service,
            dev_mode=DevModeService(
                switches=Switches(
                    sources=sources,
                    refs=refs,
                    show_path=LocalSource,
                    show_clone=lambda name, folder: work_tree(config, name, folder),
                ),
                sources=sources_service,
                clones=copies,
                syncer=self.reconciler,
                registry=self.registry,
                store=store,
                audit=self.audit,
                data_dir=config.data_dir,
                home=home,
            ),
            authoring=AuthoringService(
                grounds=Grounds(
                    refs=refs.get,
                    namespace=lambda name: sources[name].namespace if name in sources else "",
                ),
                commits=copies,
                sources=sources_service,
                syncer=self.reconciler,
                registry=self.registry,
                audit=self.audit,
                clock=clock,
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
                notifier=lambda: notices.delivers,
            ),
            pushes=PushService(push_hooks(config, environ), self.checkouts, self.audit, clock),
            hooks=HooksService(
                queue=self.queue,
                registry=self.registry,
                store=store,
                audit=self.audit,
                clock=clock,
            ),
            registries=registries,
            approvals=approving,
            sharing=SharingService(desk, registries, approving),
            updates=UpdateService(desk),
            inside=inside,
        )

    def loops(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Give what runs while the server does."""
        return [
            ("hub", self.hub.run()),
            ("events", self.events.run()),
            ("git", self.checkouts.run()),
            ("reconciler", self.reconciler.run()),
            ("keeper", self._keeper.run()),
            ("preparer", self.preparer.run()),
            ("runner", self.runner.run()),
            ("chains", self._chain_conditions.run()),
            ("notices", self._notice_conditions.run()),
            ("limits", self.queue.follow_limits()),
            ("budgets", self._budgets.run(self._bus)),
            ("readiness", self._readiness.run()),
            ("retention", self._retention.run()),
            ("api types", self._api_types.run()),
            ("meter", self.meter.run()),
            ("registries", self.services.registries.run()),
        ]

    def warm(self) -> None:
        """Begin what shortens the first runs."""
        for runtime in self._runtimes.values():
            kept = runtime.warm() if isinstance(runtime, Warming) else None
            if kept is not None:
                self._executor.warm(*kept)

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


def _started_by_any(config: Config) -> list[str]:
    """Name the tasks that the end of a run of any task may start."""
    failure = config.defaults.on_failure_chain
    named = [failure.task if failure else None, config.notifications.task]
    return [task_id for task_id in named if task_id]


def _declared(task: Task) -> tuple[Condition, ...]:
    """Give what is said of a task's manifest as this build reads it."""
    return (*not_in_force(task), *webhook_secret_missing(task))


def _retention_rule(config: Config) -> Rule:
    kept = config.defaults.retention
    return Rule(kept.age, kept.runs, inputs_age(config.defaults.run_inputs))


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
    config: Config,
    runtimes: Mapping[str, Runtime],
    environ: Mapping[str, str],
    clock: Clock,
    withheld: Withheld,
) -> TaskLoader:
    return TaskLoader(
        runtimes={name: runtime.scripts for name, runtime in runtimes.items()},
        environ=environ,
        home=Path(environ.get("HOME") or "/"),
        data_dir=config.data_dir,
        config_dir=config.file.parent if config.file else Path.cwd(),
        withheld=withheld,
        cache=DigestCache(clock),
        guarded=(config.file,) if config.file else (),
    )
